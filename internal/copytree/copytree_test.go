package copytree_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/vzkit/vzkit/internal/copytree"
	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/lifecycle"
)

var _ lifecycle.Carrier = copytree.Copier{}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// plant makes a tree with what is easily lost.
func plant(t *testing.T, dir string) {
	t.Helper()
	in := func(name string) string { return filepath.Join(dir, name) }
	must(t, os.MkdirAll(in("a/b"), 0o750), os.WriteFile(in("a/file"), []byte("text"), 0o640), os.Link(in("a/file"), in("a/b/hard")),
		os.Symlink("../nowhere", in("a/link")), unix.Mkfifo(in("fifo"), 0o622), unix.Mknod(in("null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))),
		os.WriteFile(in("not \xff utf8"), nil, 0o4711), os.WriteFile(in("caps"), []byte("x"), 0o755))
	f, err := os.Create(in("sparse"))
	must(t, err)
	_, err = f.WriteAt(bytes.Repeat([]byte("y"), 8192), 4<<20)
	must(t, err, f.Truncate(16<<20), f.Close())
	must(t, unix.Lchown(in("a/link"), 100005, 100006), unix.Lchown(in("a/file"), 100001, 100002), unix.Chmod(in("not \xff utf8"), 0o4711),
		unix.Lsetxattr(in("a/file"), "trusted.t", []byte{0, 1}, 0), unix.Lsetxattr(in("a"), "user.u", []byte("v"), 0),
		unix.Lsetxattr(in("caps"), "security.capability", append([]byte{1, 0, 0, 2, 0, 4, 0, 0}, make([]byte, 12)...), 0))
	when := unix.NsecToTimespec(time.Date(2001, 2, 3, 4, 5, 6, 789012345, time.UTC).UnixNano())
	for _, name := range []string{"a/file", "a/link", "fifo", "a/b", "a", "."} {
		must(t, unix.UtimesNanoAt(unix.AT_FDCWD, in(name), []unix.Timespec{when, when}, unix.AT_SYMLINK_NOFOLLOW))
	}
}

// picture describes a tree, one line an entry, by other means than those that
// copy it.
func picture(t *testing.T, root string) (lines []string) {
	t.Helper()
	inodes := map[uint64]string{}
	must(t, filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		name, _ := filepath.Rel(root, path)
		line := fmt.Sprintf("%q mode %o owner %d:%d mtime %d.%09d device %d", name, st.Mode, st.Uid, st.Gid, st.Mtim.Sec, st.Mtim.Nsec, st.Rdev)
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			text, err := os.ReadFile(path)
			must(t, err)
			line += fmt.Sprintf(" size %d sparse %v text %x", st.Size, st.Blocks*512 < st.Size/2, bytes.Trim(text, "\x00y"))
			if first, ok := inodes[st.Ino]; ok {
				line += " is " + first
			}
			inodes[st.Ino] = name
		case unix.S_IFLNK:
			to, _ := os.Readlink(path)
			line += " to " + to
		}
		buf := make([]byte, 4096)
		n, err := unix.Llistxattr(path, buf)
		if err != nil {
			return err
		}
		for key := range strings.SplitSeq(strings.TrimRight(string(buf[:n]), "\x00"), "\x00") {
			value := make([]byte, 4096)
			if n, err := unix.Lgetxattr(path, key, value); key != "" && err == nil {
				line += fmt.Sprintf(" %s=%x", key, value[:n])
			}
		}
		lines = append(lines, line)
		return nil
	}))
	return lines
}

func TestCopy(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	plant(t, from)
	want := picture(t, from)
	must(t, copytree.Copier{}.Copy(t.Context(), from, to))
	if diff := cmp.Diff(want, picture(t, to)); diff != "" {
		t.Error(diff)
	}
	if n, inodes, err := (copytree.Copier{}).Measure(t.Context(), to); err != nil || inodes != 10 || n < 8192 || n > 1<<20 {
		t.Errorf("%d bytes in %d inodes, %v", n, inodes, err)
	}
}

// The error is that of the side that failed.
func TestCopyFails(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	plant(t, from)
	err := copytree.Copier{}.Copy(t.Context(), filepath.Join(from, "missing"), to)
	if fault.KindOf(err) != fault.Copy || !strings.Contains(err.Error(), "missing") {
		t.Errorf("nothing to copy: %v", err)
	}
	err = copytree.Copier{}.Copy(t.Context(), from, from)
	if fault.KindOf(err) != fault.Exists {
		t.Errorf("not empty: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := (copytree.Copier{}).Copy(ctx, from, to); fault.KindOf(err) != fault.Interrupted {
		t.Errorf("cancelled: %v", err)
	}
}

func TestCopyIntoFullFileSystem(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	must(t, os.WriteFile(filepath.Join(from, "file"), bytes.Repeat([]byte("data"), 1<<20), 0o644))
	must(t, unix.Mount("tmpfs", to, "tmpfs", 0, "size=1m"))
	defer unix.Unmount(to, unix.MNT_DETACH)
	if err := (copytree.Copier{}).Copy(t.Context(), from, to); fault.KindOf(err) != fault.NoSpace {
		t.Errorf("full: %v", err)
	}
}
