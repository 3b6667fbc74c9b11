package test

import (
	"fmt"
	"testing"
)

// small gives the host a file system of its own for private areas.
func (h host) small(t testing.TB, mebibytes uint64) {
	t.Helper()
	h.sh(t, "mkdir -p /var/lib/vz/private && mount -t tmpfs -o size=%dm small /var/lib/vz/private", mebibytes)
	t.Cleanup(func() { h.sh(t, "umount /var/lib/vz/private") })
}

// The disk is too small from the start.
func TestDiskTooSmall(t *testing.T) {
	t.Parallel()
	c := running(t, takePair(t))
	c.dst.small(t, 70)
	c.migrate(t).wants(t, 31, c.dst.Name()+": ", "MiB free", "MiB are needed", "hint: Free disk space")
	c.stays(t)
}

func TestInodesTooFew(t *testing.T) {
	t.Parallel()
	c := running(t, takePair(t))
	c.dst.small(t, 500)
	c.dst.sh(t, "mount -o remount,nr_inodes=100 /var/lib/vz/private")
	c.migrate(t).wants(t, 31, c.dst.Name()+": ", "inodes free", "hint: Remove files")
	c.stays(t)
}

// The disk was large enough, then somebody fills it.
func TestDiskFillsUp(t *testing.T) {
	t.Parallel()
	c := running(t, takePair(t))
	c.narrow(t, c.src)
	c.dst.small(t, 500)
	fill := c.dst.ready(t, "cat /dev/zero >/var/lib/vz/private/fat 2>/dev/null; true")
	move := admin(t).start(t, c.command()...)
	if !move.reaches("check") {
		t.Fatal(move.wait())
	}
	fill()
	move.wait().wants(t, 31, "vzmigrate: error: "+c.dst.Name()+": ", "no space left", "hint: ")
	c.dst.sh(t, "rm /var/lib/vz/private/fat")
	c.stays(t)
}

// Private areas are often on a disk of their own.
func TestAreasOnTheirOwnDisk(t *testing.T) {
	t.Parallel()
	p := takePair(t)
	p.src.small(t, 500)
	p.dst.small(t, 500)
	c := running(t, p)
	c.migrate(t).wants(t, 0)
	c.moved(t)
	c = c.back()
	c.migrate(t).wants(t, 0)
	c.moved(t)
	c = c.back()
	c.src.ok(t, "vzctl", "stop", c.ctid())
	want := fmt.Sprintf("CTID %d exist unmounted down", c.id)
	if got := c.src.ok(t, "vzctl", "status", c.ctid()); got != want {
		t.Errorf("status %q, want %q", got, want)
	}
	c.src.ok(t, "vzctl", "start", c.ctid())
}

// Memory is too small from the start.
func TestMemoryTooSmall(t *testing.T) {
	t.Parallel()
	c := running(t, takePair(t))
	c.dst.write(t, "/run/meminfo", "MemTotal: 65536 kB\nMemAvailable: 65000 kB\n")
	restore := c.dst.hide(t, "/run/meminfo", "/proc/meminfo")
	c.migrate(t).wants(t, 31, c.dst.Name()+": ", "63 MiB of memory are available", "hint: Free memory")
	restore()
	c.stays(t)
}

// The tmpfs that takes the state in fills up.
func TestStoreFillsUp(t *testing.T) {
	t.Parallel()
	c := running(t, takePair(t))
	c.narrow(t, c.src)
	shrink := c.dst.ready(t, "mount -o remount,size=200k /run/vz/restore/*")
	move := admin(t).start(t, c.command()...)
	if !move.reaches("check") {
		t.Fatal(move.wait())
	}
	shrink()
	move.wait().wants(t, 31, "vzmigrate: error: "+c.dst.Name()+": ", " needs more than ", "MiB of tmpfs", "hint: ")
	c.stays(t)
}

// The container grows far beyond what was offered while its files go over.
func TestContainerGrows(t *testing.T) {
	t.Parallel()
	c := running(t, takePair(t))
	c.withSubject(t, c.src)
	c.narrow(t, c.src)
	move := admin(t).start(t, c.command()...)
	if !move.reaches("check") {
		t.Fatal(move.wait())
	}
	if answer := c.ask(t, "grow 200"); answer != "ok" {
		t.Fatal(answer)
	}
	c.src.sh(t, "tc qdisc change dev eth0 root tbf rate 4gbit burst 1m latency 200ms")
	move.wait().wants(t, 31, "vzmigrate: error: "+c.dst.Name()+": ", "hint: ")
	c.stays(t)
	if answer := c.ask(t, "check"); answer != "ok" {
		t.Error(answer)
	}
	c.migrate(t).wants(t, 0)
	c.moved(t)
}

// There is no room at the source for CRIU's images.
func TestNoRoomForDump(t *testing.T) {
	t.Parallel()
	c := running(t, takePair(t))
	c.src.sh(t, "mkdir -p /run/vz/dump && mount -t tmpfs -o size=40k small /run/vz/dump")
	c.migrate(t).wants(t, 8, "vzmigrate: error: prepare dump: ", "no space left")
	c.src.sh(t, "umount /run/vz/dump")
	c.stays(t)
}
