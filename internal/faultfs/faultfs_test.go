package faultfs

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// show mounts a directory with a file, a hole and a directory in it.
func show(t *testing.T, hook Hook) (beneath, dir string, f *FS) {
	t.Helper()
	if err := Missing(); err != nil {
		t.Skip("no FUSE here: ", err)
	}
	beneath, dir = t.TempDir(), t.TempDir()
	must(t, os.WriteFile(beneath+"/file", bytes.Repeat([]byte("0123456789abcdef"), 64<<10), 0o640))
	must(t, os.Mkdir(beneath+"/dir", 0o750))
	must(t, os.WriteFile(beneath+"/dir/below", []byte("below"), 0o600))
	must(t, os.WriteFile(beneath+"/hole", nil, 0o600))
	must(t, os.Truncate(beneath+"/hole", 1<<20))
	must(t, unix.Setxattr(beneath+"/file", "trusted.a", []byte("v"), 0))
	f, err := Mount(beneath, dir, hook)
	must(t, err)
	t.Cleanup(func() {
		if err := f.Unmount(); err != nil && !errors.Is(err, unix.EINVAL) {
			t.Error(err)
		}
	})
	return beneath, dir, f
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func pass(Call) syscall.Errno { return OK }

func TestPassesThrough(t *testing.T) {
	beneath, dir, _ := show(t, pass)
	got, err := os.ReadFile(dir + "/file")
	want, _ := os.ReadFile(beneath + "/file")
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("read %d bytes, %v", len(got), err)
	}
	entries, err := os.ReadDir(dir + "/dir")
	if err != nil || len(entries) != 1 || entries[0].Name() != "below" {
		t.Errorf("list %v, %v", entries, err)
	}
	buf := make([]byte, 10)
	if n, err := unix.Getxattr(dir+"/file", "trusted.a", buf); err != nil || string(buf[:n]) != "v" {
		t.Errorf("attribute %q, %v", buf[:max(n, 0)], err)
	}
	hole, err := os.Open(dir + "/hole")
	must(t, err)
	defer hole.Close()
	if _, err := hole.Seek(0, unix.SEEK_DATA); !errors.Is(err, unix.ENXIO) {
		t.Errorf("data in the hole: %v", err)
	}
	must(t, os.WriteFile(dir+"/new", []byte("x"), 0o600))
	if b, err := os.ReadFile(beneath + "/new"); string(b) != "x" || err != nil {
		t.Errorf("beneath %q, %v", b, err)
	}
}

func TestFails(t *testing.T) {
	const bad = 512 << 10
	_, dir, _ := show(t, func(c Call) syscall.Errno {
		switch {
		case c.Op == Read && c.Path == "file" && c.Offset+c.Length > bad,
			c.Op == List && c.Path == "dir",
			c.Op == Getxattr && c.Path == "file" && c.Attr == "trusted.a",
			c.Op == Open && c.Path == "dir/below":
			return syscall.EIO
		}
		return OK
	})
	f, err := os.Open(dir + "/file")
	must(t, err)
	defer f.Close()
	if n, err := io.Copy(io.Discard, f); !errors.Is(err, unix.EIO) || n != bad {
		t.Errorf("read %d bytes, %v", n, err)
	}
	if _, err := os.ReadDir(dir + "/dir"); !errors.Is(err, unix.EIO) || !strings.Contains(err.Error(), "readdir") && !strings.Contains(err.Error(), "getdents") {
		t.Errorf("list: %v", err)
	}
	if _, err := unix.Getxattr(dir+"/file", "trusted.a", nil); !errors.Is(err, unix.EIO) {
		t.Errorf("attribute: %v", err)
	}
	if _, err := os.ReadFile(dir + "/dir/below"); !errors.Is(err, unix.EIO) {
		t.Errorf("open: %v", err)
	}
}

// TestUnmountInUse: the mount disappears at once, and is gone when the last
// file is closed.
func TestUnmountInUse(t *testing.T) {
	_, dir, f := show(t, pass)
	open, err := os.Open(dir + "/file")
	must(t, err)
	done := make(chan error)
	go func() { done <- f.Unmount() }()
	for {
		if _, err := os.Stat(dir + "/file"); errors.Is(err, os.ErrNotExist) {
			break
		}
	}
	must(t, open.Close())
	must(t, <-done)
}

func TestMountErrors(t *testing.T) {
	dir := t.TempDir()
	if _, err := Mount(dir+"/missing", dir, pass); err == nil || !strings.Contains(err.Error(), dir) {
		t.Errorf("err = %v", err)
	}
	if _, err := Mount(dir, dir+"/missing", pass); err == nil || !strings.Contains(err.Error(), dir) {
		t.Errorf("err = %v", err)
	}
}
