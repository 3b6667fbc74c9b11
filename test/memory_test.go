package test

import (
	"flag"
	"fmt"
	"testing"

	"github.com/vzkit/vzkit/dump/track"
	"github.com/vzkit/vzkit/migrate"
)

// churnMoves is how many times the container with the hostile memory moves.
// The project's claim is 100: go test ./test -run Churn -churn 100.
var churnMoves = flag.Int("churn", 6, "moves of TestChurn")

// Memory that changes in every way there is arrives as it was, by every
// comparison: of all pages with what was sent, and by the programs themselves.
func TestChurn(t *testing.T) {
	t.Parallel()
	c := running(t, takePair(t))
	c.withSubject(t, c.src)
	if answer := c.ask(t, "churn"); answer != "ok" {
		t.Fatal(answer)
	}
	for i := range *churnMoves {
		o := c.migrate(t, "--verify-tracking")
		o.wants(t, 0, "memory ", "downtime ")
		if answer := c.ask(t, "check"); answer != "ok" {
			t.Fatalf("after move %d: %s\n%s", i+1, answer, o)
		}
		c = c.back()
	}
}

// Every way to find and to leave out changed memory moves the container whole.
func TestWaysOfMemory(t *testing.T) {
	t.Parallel()
	c := running(t, takePair(t))
	c.withSubject(t, c.src)
	if answer := c.ask(t, "churn"); answer != "ok" {
		t.Fatal(answer)
	}
	for _, way := range []struct {
		options       []string
		tracker, dump string
	}{
		{[]string{"--tracker", "hash", "--verify-tracking"}, "hash", "described"},
		{[]string{"--tracker", "none"}, "none", "copied"},
		{[]string{"--dump", "stock", "--verify-tracking"}, "uffd-wp", "stock"},
		{[]string{"--tracker", "hash", "--dump", "stock"}, "hash", "stock"},
		{[]string{"--streams", "3", "--compress", "lz4"}, "uffd-wp", "described"},
		{[]string{"--compress", "none", "--delta-cache", "0"}, "uffd-wp", "described"},
		{[]string{"--max-rounds", "1", "--downtime-limit", "0s"}, "uffd-wp", "described"},
	} {
		t.Run(fmt.Sprint(way.options), func(t *testing.T) {
			r := decode(t, c.migrate(t, append(way.options, "--json")...))
			if r.Tracker != way.tracker || r.Dump != way.dump {
				t.Errorf("tracker %q and dump %q, want %q and %q", r.Tracker, r.Dump, way.tracker, way.dump)
			}
			if answer := c.ask(t, "check"); answer != "ok" {
				t.Fatal(answer)
			}
			checkSums(t, r)
			checkRounds(t, r)
		})
		c = c.back()
	}
}

// checkRounds checks what a report says of pre-copy.
func checkRounds(t *testing.T, r migrate.Report) {
	t.Helper()
	rounds := r.Rounds
	if n := len(rounds); n > 0 && rounds[n-1].Decision == migrate.LastRound {
		rounds = rounds[:n-1]
	}
	for i, round := range rounds {
		last := i == len(rounds)-1
		if goesOn := round.Decision == migrate.AnotherRound || round.Decision == migrate.Throttle; goesOn == last {
			t.Errorf("round %d of %d was followed by %q", i+1, len(r.Rounds), round.Decision)
		}
	}
	if (len(r.Rounds) == 0) != (r.Tracker == "none") {
		t.Errorf("%d rounds with tracker %q", len(r.Rounds), r.Tracker)
	}
}

// A move whose memory cannot be sent in time is called off, and the container
// runs on.
func TestTooSlow(t *testing.T) {
	t.Parallel()
	c := running(t, takePair(t))
	c.withSubject(t, c.src)
	if answer := c.ask(t, "grow 64"); answer != "ok" {
		t.Fatal(answer)
	}
	c.narrow(t, c.src)
	c.migrate(t, "--max-time", "100ms").wants(t, 33, "vzmigrate: error: ", "still changing too fast after 100ms", "hint: ", "--auto-converge")
	c.stays(t)
	if answer := c.ask(t, "check"); answer != "ok" {
		t.Error(answer)
	}
}

// A container that writes faster than the link can take it is slowed down if
// that is asked for, and gets its time back.
func TestAutoConverge(t *testing.T) {
	t.Parallel()
	c := running(t, takePair(t))
	c.withSubject(t, c.src)
	if answer := c.ask(t, "churn"); answer != "ok" {
		t.Fatal(answer)
	}
	c.narrow(t, c.src)
	c.src.sh(t, "tc qdisc change dev eth0 root tbf rate 60mbit burst 256k latency 200ms")
	r := decode(t, c.migrate(t, "--json", "--auto-converge", "--downtime-limit", "1ms", "--max-rounds", "9",
		"--compress", "none", "--delta-cache", "0"))
	throttled := false
	for _, round := range r.Rounds {
		throttled = throttled || round.Decision == migrate.Throttle
	}
	if !throttled {
		t.Errorf("rounds %+v, want one that throttles", r.Rounds)
	}
	if answer := c.ask(t, "check"); answer != "ok" {
		t.Error(answer)
	}
	c.moved(t)
}

// What cannot be used is refused before anything is done.
func TestMemoryOptionsRefused(t *testing.T) {
	t.Parallel()
	c := running(t, takePair(t))
	for _, bad := range [][]string{
		{"--tracker", "magic"}, {"--dump", "copied"}, {"--max-rounds", "0"}, {"--max-time", "0s"}, {"--max-time", "soon"},
		{"--streams", "0"}, {"--streams", "17"}, {"--delta-cache", "much"}, {"--downtime-limit", "-1s"}, {"--compress", "rar"},
	} {
		c.migrate(t, bad...).wants(t, 1, "vzmigrate: error: ", bad[0][2:])
	}
	if _, _, err := track.Open(track.SoftDirty, track.Options{}); err != nil { // not in this kernel
		c.migrate(t, "--tracker", "soft-dirty").wants(t, 14, "soft-dirty")
	}
	c.stays(t)
}
