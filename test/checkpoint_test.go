package test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/checkpoint-restore/go-criu/v7/crit"
	critcli "github.com/checkpoint-restore/go-criu/v7/crit/cli"
	"github.com/checkpoint-restore/go-criu/v7/crit/images/pagemap"

	"github.com/vzkit/vzkit/backup"
)

// A container that is checkpointed runs on, and what CRIU's own programs make
// of the directory is the container as it was.
func TestCheckpoint(t *testing.T) {
	t.Parallel()
	for name, options := range map[string][]string{
		"auto": {"--verify-tracking"}, "hash": {"--tracker", "hash"}, "none": {"--tracker", "none"}, "stock": {"--dump", "stock"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := churning(t)
			dir := filepath.Join(t.TempDir(), "checkpoint")
			r := c.checkpoint(t, dir, options...)
			if answer := c.ask(t, "check"); answer != "ok" {
				t.Fatalf("after the checkpoint: %s", answer)
			}
			if pages := decodeAll(t, dir); pages != r.MemoryPages || pages == 0 {
				t.Errorf("%d pages in the images, %d reported", pages, r.MemoryPages)
			}
			if (len(r.Rounds) == 0) != (r.Tracker == "none") || r.Downtime <= 0 || r.Downtime > r.Total || r.Bytes == 0 {
				t.Errorf("report %+v", r)
			}
			init := c.restoreStock(t, dir)
			if answer := c.askRestored(t, init, "check"); answer != "ok" {
				t.Errorf("restored: %s", answer)
			}
		})
	}
}

// churning starts a container whose memory changes in every way there is.
func churning(t testing.TB) *container {
	t.Helper()
	c := running(t, takePair(t))
	c.withSubject(t, c.src)
	if answer := c.ask(t, "churn"); answer != "ok" {
		t.Fatal(answer)
	}
	return c
}

// checkpoint takes a checkpoint that has to work and leave nothing else.
func (c *container) checkpoint(t testing.TB, dir string, options ...string) (r backup.Report) {
	t.Helper()
	o := c.src.run(t, append([]string{"vzctl", "checkpoint", c.ctid(), "--json", "--dir", dir}, options...)...)
	o.wants(t, 0)
	if err := json.Unmarshal([]byte(o.stdout), &r); err != nil {
		t.Fatalf("%v: %v", o, err)
	}
	c.checkpointedOnly(t, filepath.Dir(dir), filepath.Base(dir))
	return r
}

// checkpointedOnly checks that a directory has the one entry that is named, if
// any, that the container runs, and that nothing is left of a checkpoint's making.
func (c *container) checkpointedOnly(t testing.TB, dir, name string) {
	t.Helper()
	left := c.src.sh(t, "ls -A '%s'; ls -A /run/vz/dump /run/vz/checkpoint | grep -v : ; grep checkpoint /proc/self/mounts; nft list tables; true", dir)
	if left != name {
		t.Errorf("left after a checkpoint: %q, want %q", left, name)
	}
	c.runsAt(t, c.src)
}

// decodeAll decodes all images as crit does, and counts the pages.
func decodeAll(t testing.TB, dir string) (pages uint64) {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*.img"))
	if err != nil || len(paths) < 20 {
		t.Fatalf("images %q, %v", paths, err)
	}
	for _, path := range paths {
		name := filepath.Base(path)
		if strings.HasPrefix(name, "pages-") || strings.HasPrefix(name, "tmpfs-") { // raw
			continue
		}
		image, err := decodeImage(path)
		if err != nil || len(image.Entries) == 0 && name != "cgroup.img" {
			t.Errorf("image %q: %v", name, err)
			continue
		}
		if image.Magic == "PAGEMAP" {
			pages += checkPagemap(t, dir, name, image)
		}
	}
	return pages
}

func decodeImage(path string) (*crit.CriuImage, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	kind, err := critcli.GetEntryTypeFromImg(f)
	if err != nil {
		return nil, err
	}
	return crit.New(f, nil, "", false, false).Decode(kind)
}

// checkPagemap checks that the pages ascend, as CRIU wants them, and are there.
func checkPagemap(t testing.TB, dir, name string, image *crit.CriuImage) (pages uint64) {
	t.Helper()
	end := uint64(0)
	for _, e := range image.Entries[1:] {
		p := e.Message.(*pagemap.PagemapEntry)
		if p.GetVaddr() < end {
			t.Errorf("image %q: pages at %#x follow %#x", name, p.GetVaddr(), end)
		}
		end = p.GetVaddr() + uint64(p.GetNrPages())*4096
		pages += uint64(p.GetNrPages())
	}
	raw := filepath.Join(dir, fmt.Sprintf("pages-%d.img", image.Entries[0].Message.(*pagemap.PagemapHead).GetPagesId()))
	if info, err := os.Stat(raw); err != nil || info.Size() != int64(pages)*4096 {
		t.Errorf("image %q has %d pages, %q has %v, %v", name, pages, raw, info.Size(), err)
	}
	return pages
}

// restoreStock stops the container and has CRIU itself restore what a
// checkpoint has, on the container's root and with nothing but a loopback
// device for a network. It returns the pid of init.
func (c *container) restoreStock(t testing.TB, dir string) (init string) {
	t.Helper()
	c.src.ok(t, "vzctl", "stop", c.ctid(), "--fast")
	c.src.ok(t, "vzctl", "mount", c.ctid())
	t.Cleanup(func() { c.src.ok(t, "vzctl", "umount", c.ctid()) })
	root := fmt.Sprintf("/var/lib/vz/root/%d", c.id)
	// The files have gone on since: one that the subject's shell had just made.
	c.src.sh(t, "[ -e %s/tmp/count.new ] || install -m 644 -o 100000 -g 100000 /dev/null %[1]s/tmp/count.new", root)
	if _, err := os.Stat(filepath.Join(dir, "root")); err == nil {
		c.src.sh(t, "cp -a '%s/root/.' %s/", dir, root)
	}
	work := t.TempDir()
	// CRIU closes standard input, and nsenter of util-linux 2.41 enters nothing then.
	c.src.write(t, work+"/script", "#!/bin/sh\n"+
		`[ "$CRTOOLS_SCRIPT_ACTION" != setup-namespaces ] || nsenter -t "$CRTOOLS_INIT_PID" -n ip link set lo up </dev/null`+"\n")
	c.src.sh(t, "chmod 755 '%s/script'", work)
	o := c.src.run(t, c.src.theCriu(t), "restore", "-D", dir, "--root", root, "--work-dir", work, "--action-script", work+"/script",
		"--empty-ns", "net", "--tcp-established", "--file-locks", "--link-remap", "--manage-cgroups=ignore",
		"--restore-detached", "--pidfile", work+"/pid", "-v4", "-o", "restore.log")
	if o.code != 0 {
		t.Fatalf("%v\n%s", o, c.src.sh(t, "grep -B5 Error '%s/restore.log'", work))
	}
	init = c.src.sh(t, "cat '%s/pid'", work)
	t.Cleanup(func() {
		c.src.sh(t, "kill -9 %s", init)
		eventually(t, "restored processes to end", func() bool { return c.src.run(t, "kill", "-0", init).code != 0 })
	})
	return init
}

// askRestored asks the subject in the network namespace of a process.
func (c *container) askRestored(t testing.TB, pid, request string) string {
	t.Helper()
	return c.src.ok(t, "nsenter", "-t", pid, "-n", "bash", "-c",
		fmt.Sprintf(`exec 3<>/dev/tcp/127.0.0.1/%d && echo %s >&3 && read -r -t 60 line <&3 && echo "$line"`, subjectPort, request))
}

// A file that is open under a name that is gone, and has another one, is not in
// CRIU's images.
func TestCheckpointLinkedFile(t *testing.T) {
	t.Parallel()
	c := running(t, takePair(t))
	// Not sleep: what nanosleep(2) has left is over when CRIU restores it.
	c.src.ok(t, "vzctl", "exec2", c.ctid(), "echo kept >/var/tmp/a; ln /var/tmp/a /var/tmp/b; "+
		"(exec 9</var/tmp/a; rm /var/tmp/a; exec tail -f /dev/null) </dev/null >/dev/null 2>&1 &")
	eventually(t, "file to be deleted", func() bool {
		return c.src.run(t, "vzctl", "exec2", c.ctid(), "test -e /var/tmp/a").code != 0
	})
	dir := filepath.Join(t.TempDir(), "checkpoint")
	c.checkpoint(t, dir)
	if found := c.src.sh(t, "cat '%s'/root/var/tmp/link_remap.*", dir); found != "kept" {
		t.Errorf("linked file has %q", found)
	}
	if left := c.src.ok(t, "vzctl", "exec2", c.ctid(), "ls /var/tmp"); left != "b" {
		t.Errorf("/var/tmp has %q", left)
	}
	init := c.restoreStock(t, dir)
	if found := c.src.sh(t, "nsenter -t %s -p -m -r -w sh -c 'cat /proc/[0-9]*/fd/9'", init); found != "kept" {
		t.Errorf("restored file has %q", found)
	}
}

// A directory that is empty becomes the checkpoint; no other does.
func TestCheckpointRefusals(t *testing.T) {
	t.Parallel()
	c := running(t, takePair(t))
	dir := t.TempDir()
	full := filepath.Join(dir, "full")
	c.src.sh(t, "mkdir '%s' '%s/empty' && touch '%[1]s/file'", full, dir)
	for _, r := range []struct {
		ctid, dir string
		code      int
		words     string
	}{
		{"4711", full + "/x", 14, "container 4711 does not exist"},
		{c.ctid(), full, 44, "is not empty"},
		{c.ctid(), full + "/file", 44, "is there already"},
		{c.ctid(), full + "/missing/x", 21, "hint: Make it first."},
		{c.ctid(), full + "/file/x", 21, "not a directory"},
		{c.ctid(), "", 20, "hint: Name one with --dir."},
		{c.ctid(), "/sys", 21, "is a mount point"},
	} {
		c.src.run(t, "vzctl", "checkpoint", r.ctid, "--dir", r.dir).wants(t, r.code, "vzctl: error: ", r.words)
	}
	c.src.run(t, "vzctl", "checkpoint", c.ctid()).wants(t, 20, "--dir")
	c.src.run(t, "vzctl", "checkpoint", c.ctid(), "--dir", full+"/x", "--tracker", "magic").wants(t, 21, "magic")
	c.src.run(t, "vzctl", "checkpoint", c.ctid(), "--dir", full+"/x", "--dump", "magic").wants(t, 20, "magic")
	c.src.sh(t, "mkdir '%s/other' && mount -t tmpfs -o size=8m small '%[1]s/other'", dir)
	t.Cleanup(func() { c.src.sh(t, "umount '%s/other'", dir) })
	c.src.run(t, "vzctl", "checkpoint", c.ctid(), "--dir", dir+"/other/x").wants(t, 46, "8 MiB free", "hint: Free disk space")
	c.src.sh(t, "mount -o remount,size=1g,nr_inodes=30 '%s/other'", dir)
	c.src.run(t, "vzctl", "checkpoint", c.ctid(), "--dir", dir+"/other/x").wants(t, 46, "no space left", "hint: Free space")
	c.checkpointedOnly(t, dir+"/other", "")
	c.checkpointedOnly(t, full, "file")
	empty := filepath.Join(dir, "empty")
	c.src.ok(t, "vzctl", "checkpoint", c.ctid(), "--dir", empty)
	decodeAll(t, empty)
	c.src.ok(t, "vzctl", "stop", c.ctid(), "--fast")
	c.src.run(t, "vzctl", "checkpoint", c.ctid(), "--dir", full+"/x").wants(t, 31, "is not running", "hint: ")
}

// What CRIU cannot dump is named, and the container is as it was.
func TestCheckpointUndumpable(t *testing.T) {
	t.Parallel()
	c := running(t, takePair(t))
	c.withSubject(t, c.src)
	dir := t.TempDir()
	for _, kind := range []string{"io_uring", "mptcp"} {
		if answer := c.ask(t, "hold %s", kind); answer != "ok" {
			t.Fatal(answer)
		}
		o := c.src.run(t, "vzctl", "checkpoint", c.ctid(), "--dir", dir+"/x")
		o.wants(t, 16, "vzctl: error: ", "process ")
		c.checkpointedOnly(t, dir, "")
		if answer := c.ask(t, "drop"); answer != "ok" {
			t.Fatal(answer)
		}
	}
}

// A stopped process would make CRIU wait for ever, with the container frozen.
func TestCheckpointStoppedProcess(t *testing.T) {
	t.Parallel()
	c := running(t, takePair(t))
	c.src.ok(t, "vzctl", "exec2", c.ctid(), "sleep 100000 </dev/null >/dev/null 2>&1 & echo $! >/tmp/pid; kill -STOP $!")
	dir := t.TempDir()
	c.src.run(t, "vzctl", "checkpoint", c.ctid(), "--dir", dir+"/x").wants(t, 16, "is stopped", "hint: Let that process end or go on")
	c.checkpointedOnly(t, dir, "")
	c.src.ok(t, "vzctl", "exec2", c.ctid(), "kill -CONT $(cat /tmp/pid)")
	c.checkpoint(t, dir+"/x")
}

// Ctrl-C at any time leaves the container running and no directory, or a whole
// one.
func TestCheckpointInterrupted(t *testing.T) {
	t.Parallel()
	c := running(t, takePair(t))
	c.withSubject(t, c.src)
	for range 8 {
		dir := t.TempDir()
		p := c.src.start(t, "vzctl", "checkpoint", c.ctid(), "--dir", dir+"/x")
		time.Sleep(time.Duration(rand.IntN(int(600 * time.Millisecond))))
		p.interrupt()
		switch o := p.wait(); o.code {
		case 0:
			c.checkpointedOnly(t, dir, "x")
			decodeAll(t, dir+"/x")
		default:
			o.wants(t, 130)
			c.checkpointedOnly(t, dir, "")
		}
		if answer := c.ask(t, "check"); answer != "ok" {
			t.Fatal(answer)
		}
	}
}
