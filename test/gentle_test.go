package test

import (
	"strings"
	"testing"
	"time"
)

// A limit on the rate is kept: what goes over takes that long at least.
func TestBandwidthLimit(t *testing.T) {
	t.Parallel()
	c := create(t, takePair(t), "minimal")
	c.within(t, "dd if=/dev/urandom of=/large bs=1M count=4 2>/dev/null")
	start := time.Now()
	r := decode(t, c.migrate(t, "--json", "--bwlimit", "2M", "--polite"))
	if took := time.Since(start); took < 2*time.Second || r.WireBytes < 4<<20 {
		t.Errorf("%d bytes took %v at 2 MiB/s", r.WireBytes, took)
	}
	c = c.back()
	c.absentAt(t, c.dst)
}

// A file system without extended attributes and ACLs is refused, unless that was
// allowed.
func TestLossy(t *testing.T) {
	t.Parallel()
	c := create(t, takePair(t), "minimal")
	plain := c.dst
	plain.sh(t, "mkdir -p /var/lib/vz/private && mount -t ramfs plain /var/lib/vz/private")
	t.Cleanup(func() {
		c.destroy(t)
		plain.sh(t, "umount /var/lib/vz/private")
	})
	c.migrate(t).wants(t, 6, "cannot keep: ", "extended attributes of class user", "POSIX ACLs", "hint: ", "--lossy")
	if left := c.dst.sh(t, "ls -A /var/lib/vz/private"); left != "" {
		t.Errorf("left at the destination: %s", left)
	}
	o := c.migrate(t, "--lossy")
	o.wants(t, 0)
	if all := o.stdout + o.stderr; !strings.Contains(all, "not kept at the destination: ") || !strings.Contains(all, "POSIX ACLs") {
		t.Errorf("the user is not told: %s", all)
	}
	*c = *c.back()
	c.src.ok(t, "vzctl", "start", c.ctid())
	c.src.ok(t, "vzctl", "exec2", c.ctid(), "test -x /bin/sh")
	c.src.ok(t, "vzctl", "stop", c.ctid(), "--fast")
}

// Options about files that make no sense.
func TestBadFileOptions(t *testing.T) {
	p := takePair(t)
	for _, rate := range []string{"fast", "-1", "1", "10Q", ""} {
		p.src.run(t, "vzmigrate", "--bwlimit", rate, p.dst.Name(), "101").wants(t, 1, "--bwlimit")
	}
}
