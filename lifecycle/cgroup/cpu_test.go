package cgroup_test

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/vzkit/vzkit/lifecycle/cgroup"
)

// A group's limit of CPU time holds, and goes again.
func TestLimitCPU(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	g, err := cgroup.At(fmt.Sprintf("vz-test-cpu-%d", os.Getpid()))
	if err != nil {
		t.Skip(err)
	}
	if err := g.Create(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = g.Remove() })
	loop := exec.Command("sh", "-c", "while :; do :; done")
	if err := loop.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = loop.Process.Kill(); _ = loop.Wait() })
	if err := g.Join(loop.Process.Pid); err != nil {
		t.Fatal(err)
	}
	lift, err := g.LimitCPU(0.05)
	if err != nil && strings.Contains(err.Error(), "no cgroup controller") {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(200 * time.Millisecond) // what it may have used before
	limited := use(t, g, time.Second)
	if err := lift(); err != nil {
		t.Fatal(err)
	}
	if limited > 300*time.Millisecond { // of 50
		t.Errorf("used %v of a second", limited)
	}
	// How much it gets now is the machine's business, that it gets more is ours.
	for deadline := time.Now().Add(20 * time.Second); use(t, g, 500*time.Millisecond) <= limited; {
		if time.Now().After(deadline) {
			t.Fatal("limit is still there")
		}
	}
}

func use(t *testing.T, g *cgroup.Group, d time.Duration) time.Duration {
	t.Helper()
	before, err := g.CPUTime()
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(d)
	after, err := g.CPUTime()
	if err != nil {
		t.Fatal(err)
	}
	return after - before
}
