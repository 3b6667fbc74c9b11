package watch

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vzkit/vzkit/internal/mountns"
)

// TestNamespaces changes the tree through other mounts of its file system, from
// inside other namespaces.
func TestNamespaces(t *testing.T) {
	for name, flags := range map[string][]string{
		"mount namespace": {"--mount"},
		"user namespace":  {"--mount", "--user", "--map-root-user"},
		"pid namespace":   {"--mount", "--pid", "--fork"},
	} {
		t.Run(name, func(t *testing.T) {
			tr := newTree(t)
			ok(t, os.Mkdir("m", 0o755))
			tr.take(t)
			script := "mount --bind d m && cd m && echo more >>f && mkdir sub && echo x >sub/y"
			unshare(t, append(flags, "sh", "-c", script)...)
			c := tr.take(t)
			d := inode("d")
			if !has(c, d, "f") || !has(c, d, "sub") || !has(c, inode("d/sub"), "y") {
				t.Errorf("not all reported: %+v", c.Names)
			}
		})
	}
}

func unshare(t *testing.T, args ...string) {
	t.Helper()
	if mountns.Chrooted() {
		t.Skip("in a chroot unshare(1) cannot make mounts private, and there are no user namespaces")
	}
	out, err := exec.Command("unshare", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("unshare %q: %v: %s", args, err, out)
	}
}

// TestReadingIsSilent reads on a mount that keeps access times exactly.
func TestReadingIsSilent(t *testing.T) {
	tr := newTree(t)
	tr.take(t)
	unshare(t, "--mount", "sh", "-c",
		"mount --bind . . && mount -o remount,bind,strictatime . && cd $PWD && cat d/f >/dev/null && ls -laR . >/dev/null")
	c := tr.take(t)
	dirs := tr.dirs()
	for dir, names := range c.Names {
		t.Errorf("directory %d, %v: %v", dir, dirs[dir], names)
	}
}

func TestTwoWatches(t *testing.T) {
	one := newTree(t)
	other := &tree{dir: one.dir, w: start(t, one.dir)}
	one.take(t)
	other.take(t)
	ok(t, os.Chmod("d/f", 0o600))
	if !has(one.take(t), inode("d"), "f") {
		t.Error("first watch has not seen it")
	}
	ok(t, one.w.Close())
	ok(t, os.Chmod("d/g", 0o600))
	c := other.take(t)
	if !has(c, inode("d"), "f") || !has(c, inode("d"), "g") {
		t.Errorf("second watch has seen %v", c.Names)
	}
}

func TestOpenByPathDescriptor(t *testing.T) {
	fd, err := unix.Open(t.TempDir(), unix.O_PATH|unix.O_DIRECTORY, 0)
	ok(t, err)
	root := os.NewFile(uintptr(fd), "root")
	defer root.Close()
	w, err := Open(root)
	ok(t, err)
	ok(t, w.Close())
}

// TestUnknownComesLater has a directory become known after its change.
func TestUnknownComesLater(t *testing.T) {
	tr := newTree(t)
	tr.take(t)
	d := inode("d")
	is := func(v bool) func(uint64) bool { return func(dir uint64) bool { return v && dir == d } }
	ok(t, os.Chmod("d/f", 0o600))
	c, lost, err := tr.w.Take(is(false))
	if err != nil || lost || len(c.Names)+len(c.Dirs) != 0 {
		t.Fatalf("unknown directory: %+v, %v, %v", c, lost, err)
	}
	ok(t, os.Chmod("d/g", 0o600))
	c, lost, err = tr.w.Take(is(true))
	if _, all := c.Dirs[d]; err != nil || lost || !all || len(c.Names) != 0 {
		t.Fatalf("known by now: %+v, %v, %v", c, lost, err)
	}
	if c, _, _ = tr.w.Take(is(true)); len(c.Names)+len(c.Dirs) != 0 {
		t.Errorf("reported twice: %+v", c)
	}
}

// TestOverflow has more events than a limited queue holds.
func TestOverflow(t *testing.T) {
	w := idle(t, 0)
	known := func(uint64) bool { return true }
	many(t, 6000)
	if c, lost, err := w.Take(known); err != nil || !lost || len(c.Names)+len(c.Dirs)+len(c.Files) != 0 {
		t.Fatalf("lost %v, %v, %d names", lost, err, len(c.Names))
	}
	ok(t, os.WriteFile("more", nil, 0o600))
	if c, lost, err := w.Take(known); err != nil || lost || !has(c, inode("."), "more") {
		t.Fatalf("after overflow: lost %v, %v", lost, err)
	}
}

// TestBehind has more events in the queue than the watch is to bear.
func TestBehind(t *testing.T) {
	w := idle(t, unix.FAN_UNLIMITED_QUEUE)
	w.maxQueued = 1
	w.full = checkEvery - 1
	many(t, 2000)
	_, lost, err := w.Take(func(uint64) bool { return true })
	if !lost || !errors.Is(err, ErrBehind) {
		t.Fatalf("lost %v, %v", lost, err)
	}
}

// idle opens a watch that nobody drains on the new working directory.
func idle(t *testing.T, queue uint) *Watch {
	t.Helper()
	t.Chdir(t.TempDir())
	root, err := os.Open(".")
	ok(t, err)
	defer root.Close()
	w, err := open(root, queue)
	ok(t, err)
	close(w.done)
	t.Cleanup(func() { ok(t, w.Close()) })
	return w
}

// many makes n files and removes them, three events each: of the entry, of the
// file by its name, and of the inode.
func many(t *testing.T, n int) {
	t.Helper()
	for i := range n {
		name := "file with a long name, to fill the buffer, " + itoa(i)
		ok(t, os.WriteFile(name, nil, 0o600))
		ok(t, os.Remove(name))
	}
}

func TestClose(t *testing.T) {
	tr := newTree(t)
	ok(t, tr.w.Close())
	ok(t, tr.w.Close())
	if _, lost, err := tr.w.Take(func(uint64) bool { return true }); !lost || !errors.Is(err, os.ErrClosed) {
		t.Errorf("take: lost %v, %v", lost, err)
	}
}

func TestRefused(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	ok(t, os.WriteFile(file, nil, 0o600))
	for path, want := range map[string]string{"/proc": "not known", file: "not a directory"} {
		f, err := os.Open(path)
		ok(t, err)
		w, err := Open(f)
		if err == nil {
			w.Close()
		}
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", path, err)
		}
		f.Close()
	}
}
