package test

import (
	"fmt"
	"strings"
	"testing"
)

// cut prepares to lose everything that arrives at the host from another one.
// Neither side hears of it.
func (h host) cut(t testing.TB, from host) (cut, mend func()) {
	t.Helper()
	now := h.ready(t, "nft 'add table ip cut; add chain ip cut in { type filter hook prerouting priority -400; }; "+
		"add rule ip cut in ip saddr %s drop'", from.Addr())
	isCut := false
	mend = func() {
		if isCut {
			isCut = false
			h.sh(t, "nft delete table ip cut")
		}
	}
	t.Cleanup(mend)
	return func() { now(); isCut = true }, mend
}

// The link between the two hosts is lost before the handover is recorded: the
// container runs on at the source. What the destination holds in vain is gone
// when the container comes again.
func TestLinkCut(t *testing.T) {
	t.Parallel()
	atEachMoment(t, func(t *testing.T, c *container, p *process) {
		cut, mend := c.dst.cut(t, c.src)
		cut()
		c.letDump(t)
		p.wait().wants(t, 4, "vzmigrate: error: ")
		c.goOn(t)
		mend()
		eventually(t, "destination to notice, or to hold what it has", func() bool {
			left := c.dst.traces(t, c)
			return left == "" || strings.Contains(left, fmt.Sprintf("/run/vz/hold/%d.json", c.id))
		})
	})
}

// The destination dies. What it had on disk is gone when the container comes
// again.
func TestDestinationReboots(t *testing.T) {
	t.Parallel()
	atEachMoment(t, func(t *testing.T, c *container, p *process) {
		if err := c.dst.Reboot(t.Context()); err != nil {
			t.Error(err)
		}
		c.letDump(t)
		p.wait().wants(t, 4, "vzmigrate: error: ")
	})
}

// recordThenCut brings a migration to the point where the source has recorded
// the handover, and nothing that it sends arrives any more.
func (c *container) recordThenCut(t *testing.T) (p *process, mend func()) {
	t.Helper()
	p = c.migrateTo(t, moments[2])
	cut, mend := c.dst.cut(t, c.src)
	cut()
	c.goOn(t)
	eventually(t, "handover to be recorded", func() bool {
		return c.src.run(t, "test", "-e", fmt.Sprintf("/var/lib/vz/handover/%d.json", c.id)).code == 0
	})
	return p, mend
}

// The link is lost after the record, and comes back while the source still
// tries to deliver it.
func TestLinkCutAfterRecord(t *testing.T) {
	t.Parallel()
	c := running(t, takePair(t))
	book := c.keepBook(t)
	p, mend := c.recordThenCut(t)
	if !p.reaches("note: handover is recorded but not confirmed") {
		t.Fatal(p.wait())
	}
	mend()
	p.wait().wants(t, 0, "downtime ")
	book.isWhole(t)
	c.moved(t)
}

// The link is lost after the record and stays away: the container stands still
// and is whole, nobody may run it at the source, and the next command delivers
// the handover.
func TestUndelivered(t *testing.T) {
	t.Parallel()
	c := running(t, takePair(t))
	book := c.keepBook(t)
	p, mend := c.recordThenCut(t)
	dst := c.dst.Name()
	p.wait().wants(t, 22, fmt.Sprintf("container %d is handed to %s, which has not confirmed", c.id, dst), "hint: It stands still")
	if status := c.src.ok(t, "vzctl", "status", c.ctid()); status != fmt.Sprintf("CTID %d exist mounted running handed to %s", c.id, dst) {
		t.Errorf("status %q", status)
	}
	c.src.run(t, "vzctl", "start", c.ctid()).wants(t, 9, "is handed to "+dst)
	c.src.run(t, "vzctl", "destroy", c.ctid()).wants(t, 9, "is handed to "+dst)
	if c.ping() == nil {
		t.Error("container answers, but no host may run it")
	}
	admin(t).run(t, "vzmigrate", c.src.Name(), "admin", c.ctid()).wants(t, 22, "is handed to "+dst)
	mend()
	c.migrate(t).wants(t, 0, "note: delivering the handover of ")
	book.isWhole(t)
	c.moved(t)
}
