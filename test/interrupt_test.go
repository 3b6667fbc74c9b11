package test

import (
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"
)

// stopCriu has a CRIU that is to dump or restore wait, before it does anything,
// until goOn. It is the one that is started with tools of ours on its PATH; the
// others only answer questions.
func (h host) stopCriu(t testing.TB) {
	t.Helper()
	h.sh(t, "cp %s /run/criu", h.theCriu(t))
	h.write(t, "/run/slow-criu", `#!/bin/sh
case $PATH in /run/vz/criu/bin:*) while [ -e /run/stop-criu ]; do sleep 0.02; done ;; esac
exec /run/criu "$@"
`)
	h.sh(t, "chmod 755 /run/slow-criu; touch /run/stop-criu")
	h.hide(t, "/run/slow-criu", h.theCriu(t))
	t.Cleanup(func() { h.goOn(t) })
}

// goOn lets CRIU work.
func (h host) goOn(t testing.TB) {
	t.Helper()
	h.sh(t, "rm -f /run/stop-criu")
}

// moment is a point in a migration at which something happens to it.
type moment struct {
	name  string
	after string                           // the phase that has been reported by then
	halt  func(t testing.TB, c *container) // arranges that the migration stays there
}

// moments at which the container is still the source's. At the first its files
// are going over, at the second CRIU dumps it, at the third CRIU restores it.
var moments = []moment{
	{"files", "check", func(t testing.TB, c *container) { c.narrow(t, c.src) }},
	{"dump", "freeze", func(t testing.TB, c *container) { c.src.stopCriu(t) }},
	{"restore", "send", func(t testing.TB, c *container) { c.dst.stopCriu(t) }},
}

// migrateTo starts a migration that gets to the moment and stays there.
func (c *container) migrateTo(t testing.TB, m moment) *process {
	t.Helper()
	m.halt(t, c)
	p := admin(t).start(t, c.command()...)
	if !p.reaches(m.after) {
		t.Fatal(p.wait())
	}
	return p
}

// goOn lets a migration that was halted go on.
func (c *container) goOn(t testing.TB) {
	t.Helper()
	for _, h := range c.both() {
		h.goOn(t)
	}
}

// atEachMoment runs f as a test of its own for each moment, with a container
// that a client writes to. Afterwards the container runs at the source as it
// did, and moves at the next attempt.
func atEachMoment(t *testing.T, f func(t *testing.T, c *container, p *process)) {
	for _, m := range moments {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			c := running(t, takePair(t))
			book := c.keepBook(t)
			f(t, c, c.migrateTo(t, m))
			c.runsAt(t, c.src)
			book.goesOn(t)
			c.goOn(t)
			c.migrate(t).wants(t, 0)
			book.isWhole(t)
			c.moved(t)
			if left := c.dst.sh(t, "ls -A /var/lib/vz/private /etc/vz/conf"); left != fmt.Sprintf("/etc/vz/conf:\n%d.conf\n\n/var/lib/vz/private:\n%[1]d", c.id) {
				t.Errorf("at the destination:\n%s", left)
			}
		})
	}
}

// letDump lets a dump that has begun come to its end in a second: it is not
// cut short.
func (c *container) letDump(t testing.TB) {
	if c.src.run(t, "test", "-e", "/run/stop-criu").code == 0 {
		timer := time.AfterFunc(time.Second, func() { c.src.goOn(t) })
		t.Cleanup(func() { timer.Stop() })
	}
}

func TestInterrupt(t *testing.T) {
	t.Parallel()
	atEachMoment(t, func(t *testing.T, c *container, p *process) {
		p.interrupt()
		c.letDump(t)
		p.wait().wants(t, 25, fmt.Sprintf("vzmigrate: error: interrupted; container %d stays on %s", c.id, c.src.Name()))
		c.goOn(t)
		c.stays(t)
	})
}

// Whoever has started the migration goes away without a word.
func TestCommandKilled(t *testing.T) {
	t.Parallel()
	atEachMoment(t, func(t *testing.T, c *container, p *process) {
		_ = p.cmd.Process.Signal(syscall.SIGKILL)
		p.wait()
		c.goOn(t)
		eventually(t, "container to be given up", func() bool { return c.dst.traces(t, c) == "" })
	})
}

// Whenever Ctrl-C comes, the container runs at exactly one host.
func TestInterruptAnytime(t *testing.T) {
	t.Parallel()
	c := running(t, takePair(t))
	book := c.keepBook(t)
	for range 10 {
		delay := time.Duration(rand.IntN(1500)) * time.Millisecond
		p := admin(t).start(t, c.command()...)
		time.Sleep(delay)
		p.interrupt()
		o := p.wait()
		book.goesOn(t)
		switch at := c.oneOwner(t); {
		case o.code == 25 && at == c.src:
		case o.code == 128+int(syscall.SIGINT) && at == c.src: // before the program had begun
		case o.code == 0 && at == c.dst:
			c = c.back()
		default:
			t.Errorf("interrupted after %v: container is on %s, but %v", delay, at.Name(), o)
		}
	}
	book.isWhole(t)
}
