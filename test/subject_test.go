package test

import "testing"

// What processes hold moves with them, there and back.
func TestEverythingHeldSurvives(t *testing.T) {
	t.Parallel()
	c := running(t, takePair(t))
	c.withSubject(t, c.src)
	if answer := c.ask(t, "check"); answer != "ok" {
		t.Fatalf("before the move: %s", answer)
	}
	for range 2 {
		c.migrate(t).wants(t, 0)
		c.moved(t)
		if answer := c.ask(t, "check"); answer != "ok" {
			t.Errorf("after the move from %s: %s", c.src.Name(), answer)
		}
		c = c.back()
	}
}

// What CRIU cannot dump is named, with the process that holds it; the
// container runs on, and moves when it has let go.
func TestUndumpable(t *testing.T) {
	t.Parallel()
	c := running(t, takePair(t))
	c.withSubject(t, c.src)
	for kind, words := range map[string][]string{
		"mptcp":       {"MPTCP"},
		"vsock":       {"socket", "family 40"},
		"userfaultfd": {"userfaultfd"},
		"io_uring":    {"io_uring"},
		"traced":      {"traced"},
		"stopped":     {"stopped", "SIGSTOP"},
	} {
		if answer := c.ask(t, "hold %s", kind); answer != "ok" {
			t.Fatalf("hold %s: %s", kind, answer)
		}
		c.migrate(t).wants(t, 8, append(words, "vzmigrate: error: ", "process ")...)
		c.stays(t)
		if answer := c.ask(t, "drop"); answer != "ok" {
			t.Fatalf("drop %s: %s", kind, answer)
		}
	}
	c.migrate(t).wants(t, 0)
	c.moved(t)
}
