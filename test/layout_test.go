package test

import (
	"fmt"
	"strings"
	"testing"
)

// imaged creates a container with an image of 300 MiB on the pair's source.
func imaged(t *testing.T, p pair) *container {
	t.Helper()
	if out := p.src.sh(t, "ls /dev/loop-control 2>&1 || true"); out != "/dev/loop-control" {
		t.Skip("this machine has no loop devices:", out)
	}
	var c *container
	t.Cleanup(func() { // after it is destroyed
		if c != nil {
			eventually(t, "loop devices to be free", func() bool { return c.loops(t) == "" })
		}
	})
	c = create(t, p, "minimal", "--layout", "ploop", "--diskspace", "300M")
	return c
}

// loops lists the loop devices with an image of the container on its source.
func (c *container) loops(t *testing.T) string {
	t.Helper()
	return c.src.sh(t, "grep -l 'private/[^/]*%d[^/]*/' /sys/block/loop*/loop/backing_file 2>/dev/null || true", c.id)
}

// mounted runs a script in the root of the stopped container, on its host.
func (c *container) mounted(t *testing.T, script string) string {
	t.Helper()
	c.src.ok(t, "vzctl", "mount", c.ctid())
	defer c.src.ok(t, "vzctl", "umount", c.ctid())
	return c.src.sh(t, "cd /var/lib/vz/root/%d && %s", c.id, script)
}

// digest is a sum of all that GNU tar knows of the container's files.
func (c *container) digest(t *testing.T) string {
	t.Helper()
	return c.mounted(t, `tar --create --format=posix --pax-option=exthdr.name=%d/x/%f,delete=atime,delete=ctime --sort=name \
		--numeric-owner --xattrs --xattrs-include='*' --acls --sparse --sparse-version=0.0 . | sha256sum`)
}

// allocated is how many MiB of the disk the container's image takes.
func (c *container) allocated(t *testing.T) (mib int) {
	t.Helper()
	text := c.src.sh(t, "du --block-size=1M /var/lib/vz/private/%d/root.img", c.id)
	if _, err := fmt.Sscan(text, &mib); err != nil {
		t.Fatal(text, err)
	}
	return mib
}

// size is how many KiB df shows in the running container.
func (c *container) size(t *testing.T) (total, free int) {
	t.Helper()
	text := c.src.ok(t, "vzctl", "exec", c.ctid(), "df -k / | tail -n 1")
	var device, used string
	if _, err := fmt.Sscan(text, &device, &total, &used, &free); err != nil {
		t.Fatal(text, err)
	}
	return total, free
}

func TestImageLayout(t *testing.T) {
	t.Parallel()
	c := imaged(t, takePair(t))
	h := c.src
	h.ok(t, "vzctl", "start", c.ctid())
	before := c.allocated(t)
	h.ok(t, "vzctl", "exec", c.ctid(), "dd if=/dev/zero of=/big bs=1M count=100 2>/dev/null && sync && echo kept >/file")
	if now := c.allocated(t); now < before+95 {
		t.Errorf("100 MiB written, image went from %d MiB to %d", before, now)
	}
	c.listsSpace(t, 100<<10, 300<<10)
	h.run(t, "vzctl", "set", c.ctid(), "--diskspace", "64M", "--save").wants(t, 154, "container uses", "more than 64.0 MiB")
	h.ok(t, "vzctl", "exec", c.ctid(), "rm /big")
	h.run(t, "vzctl", "compact", c.ctid()).wants(t, 0, "given back")
	if now := c.allocated(t); now > before+5 {
		t.Errorf("100 MiB deleted and compacted, image went from %d MiB to %d", before, now)
	}
	_, free := c.size(t)
	h.ok(t, "vzctl", "set", c.ctid(), "--diskspace", "150M", "--save")
	if _, now := c.size(t); now > free-145<<10 {
		t.Errorf("shrunk by 150 MiB in use, free went from %d KiB to %d", free, now)
	}
	h.ok(t, "vzctl", "set", c.ctid(), "--diskspace", "300M", "--save")
	if _, now := c.size(t); now < free-1<<10 {
		t.Errorf("as large as before, free went from %d KiB to %d", free, now)
	}
	c.growInUse(t)
	h.ok(t, "vzctl", "stop", c.ctid())
	h.ok(t, "vzctl", "set", c.ctid(), "--diskspace", "500M", "--save")
	h.ok(t, "vzctl", "start", c.ctid())
	if total, _ := c.size(t); total < 450<<10 {
		t.Errorf("grown to 500 MiB, size is %d KiB", total)
	}
	if text := h.ok(t, "vzctl", "exec", c.ctid(), "cat /file"); text != "kept" {
		t.Errorf("file is %q", text)
	}
	h.run(t, "vzctl", "convert", c.ctid(), "--layout", "simfs").wants(t, 32, "is running")
	h.ok(t, "vzctl", "stop", c.ctid(), "--fast")
	if left := c.loops(t); left != "" {
		t.Errorf("stopped, and in use: %s", left)
	}
}

// listsSpace checks what vzlist tells of the disk space, in KiB.
func (c *container) listsSpace(t *testing.T, least, size int) {
	t.Helper()
	text := c.src.ok(t, "vzlist", "-H", "-o", "layout,diskspace,diskspace.s,diskspace.h", c.ctid())
	var layout string
	var used, soft, hard int
	if n, err := fmt.Sscan(text, &layout, &used, &soft, &hard); n != 4 || layout != "image" || used < least || used > size || soft != size || hard != size {
		t.Errorf("vzlist says %q, %v, want %d..%d of %[4]d KiB", text, err, least, size)
	}
}

// growInUse grows a running container's image, where this machine's root may.
func (c *container) growInUse(t *testing.T) {
	t.Helper()
	const sysResource = 24
	o := c.src.run(t, "vzctl", "set", c.ctid(), "--diskspace", "400M", "--save")
	if c.src.sh(t, "echo $((0x$(awk '/^CapEff/ { print $2 }' /proc/self/status) >> %d & 1))", sysResource) == "0" {
		o.wants(t, 154, "CAP_SYS_RESOURCE", "Stop")
		return
	}
	o.wants(t, 0)
	if total, _ := c.size(t); total < 350<<10 {
		t.Errorf("grown to 400 MiB, size is %d KiB", total)
	}
}

func TestConvert(t *testing.T) {
	t.Parallel()
	c := imaged(t, takePair(t))
	c.mounted(t, `mkdir -p d/e && echo text >d/file && ln d/file d/e/hard && ln -s ../none d/link && mkfifo d/fifo &&
		truncate -s 30M d/sparse && echo x | dd of=d/sparse bs=1M seek=7 conv=notrunc 2>/dev/null && chown 100007:100009 d/file && chmod 4750 d/file &&
		touch -h -d '2001-02-03 04:05:06.789012345' d/link d/file d/fifo d/e d`)
	want := c.digest(t)
	for _, layout := range []string{"dir", "ploop:raw", "simfs"} {
		c.src.ok(t, "vzctl", "convert", c.ctid(), "--layout", layout)
		if got := c.digest(t); got != want {
			t.Errorf("converted to %s, the files are others", layout)
		}
		if left := c.src.sh(t, "ls -A /var/lib/vz/private"); left != c.ctid() {
			t.Errorf("converted to %s, beside the private area: %s", layout, left)
		}
	}
	c.src.run(t, "vzctl", "convert", c.ctid(), "--layout", "dir").wants(t, 155, "already")
	c.src.run(t, "vzctl", "convert", c.ctid(), "--layout", "zfs").wants(t, 21, `"zfs"`)
	c.src.run(t, "vzctl", "convert", c.ctid(), "--layout", "image", "--diskspace", "0").wants(t, 21, "is not in")
	c.src.run(t, "vzctl", "compact", c.ctid()).wants(t, 0, "nothing to compact")
	c.src.run(t, "vzctl", "set", c.ctid(), "--diskspace", "1G", "--save").wants(t, 21, "layout dir")
	c.src.ok(t, "vzctl", "start", c.ctid())
	c.src.ok(t, "vzctl", "exec", c.ctid(), "test -p /d/fifo")
}

// A conversion that is killed leaves a container that starts, as it was.
func TestConvertKilled(t *testing.T) {
	t.Parallel()
	c := imaged(t, takePair(t))
	c.mounted(t, "for i in $(seq 3000); do echo $i >var/file$i; done")
	want := c.digest(t)
	for _, wait := range []string{"0.01", "0.05", "0.1", "0.2"} {
		c.src.sh(t, "timeout --signal=KILL %s vzctl convert %d --layout dir || true", wait, c.id)
		if got := c.digest(t); got != want {
			t.Errorf("killed after %s s, the files are others", wait)
		}
		if left := c.src.sh(t, "ls -A /var/lib/vz/private"); left != c.ctid() {
			t.Errorf("killed after %s s, beside the private area: %s", wait, left)
		}
		if layout := c.src.sh(t, "grep VE_LAYOUT /etc/vz/conf/%d.conf", c.id); strings.Contains(layout, "dir") {
			c.src.ok(t, "vzctl", "convert", c.ctid(), "--layout", "image")
		}
	}
}

// An image that is damaged or gone is named, and nothing is left of the attempt.
func TestDamagedImage(t *testing.T) {
	t.Parallel()
	c := imaged(t, takePair(t))
	path := fmt.Sprintf("/var/lib/vz/private/%d/root.img", c.id)
	c.src.sh(t, "cp --sparse=always %s /var/lib/vz/whole.img && dd if=/dev/zero of=%[1]s bs=64k count=1 conv=notrunc 2>/dev/null", path)
	c.src.run(t, "vzctl", "start", c.ctid()).wants(t, 152, path, "is damaged", "e2fsck -f "+path)
	c.src.sh(t, "mv %s /var/lib/vz/damaged.img", path)
	c.src.run(t, "vzctl", "start", c.ctid()).wants(t, 14, "no private area")
	c.src.sh(t, "rm /var/lib/vz/damaged.img && mv /var/lib/vz/whole.img %s", path)
	c.src.ok(t, "vzctl", "start", c.ctid())
}
