package files

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sort"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// snapshot describes everything beneath a directory that should survive a
// move, by means of its own: path to text.
type snapshot struct {
	t       *testing.T
	entries map[string]string
	links   map[uint64]string // inode to its first path
}

func snap(t *testing.T, root string) map[string]string {
	t.Helper()
	dir, err := os.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	s := &snapshot{t, map[string]string{}, map[uint64]string{}}
	s.add(dir, ".", "")
	s.directory(dir, "")
	return s.entries
}

func (s *snapshot) directory(dir *os.File, path string) {
	names, err := dir.Readdirnames(-1)
	if err != nil {
		s.t.Fatal(err)
	}
	sort.Strings(names)
	for _, name := range names {
		below := path + "/" + name
		if s.add(dir, name, below) != unix.S_IFDIR {
			continue
		}
		fd, err := unix.Openat(int(dir.Fd()), name, unix.O_RDONLY|unix.O_NOATIME|unix.O_NOFOLLOW, 0)
		if err != nil {
			s.t.Fatal(err)
		}
		sub := os.NewFile(uintptr(fd), name)
		s.directory(sub, below)
		sub.Close()
	}
}

func (s *snapshot) add(dir *os.File, name, path string) (kind uint32) {
	var st unix.Stat_t
	if err := unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		s.t.Fatal(err)
	}
	kind = st.Mode & unix.S_IFMT
	text := fmt.Sprintf("mode %o owner %d:%d rdev %x mtime %d.%09d", st.Mode, st.Uid, st.Gid, st.Rdev, st.Mtim.Sec, st.Mtim.Nsec)
	if kind != unix.S_IFDIR {
		if s.links[st.Ino] == "" {
			s.links[st.Ino] = path
		}
		text += fmt.Sprintf(" nlink %d of %q", st.Nlink, s.links[st.Ino])
	}
	at := fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), name)
	switch kind {
	case unix.S_IFREG:
		text += fmt.Sprintf(" size %d %s", st.Size, content(s.t, at))
	case unix.S_IFLNK:
		target, err := os.Readlink(at)
		if err != nil {
			s.t.Fatal(err)
		}
		text += " to " + target
	}
	s.entries[path] = text + attributes(s.t, at)
	return kind
}

// content lists the runs of data with their digests.
func content(t *testing.T, path string) string {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOATIME, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var runs strings.Builder
	for at := int64(0); ; {
		start, err := f.Seek(at, unix.SEEK_DATA)
		if err != nil {
			return runs.String()
		}
		if at, err = f.Seek(start, unix.SEEK_HOLE); err != nil {
			t.Fatal(err)
		}
		h := sha256.New()
		if _, err := io.Copy(h, io.NewSectionReader(f, start, at-start)); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&runs, "[%d-%d %x]", start, at, h.Sum(nil)[:6])
	}
}

func attributes(t *testing.T, path string) string {
	buf := make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, buf)
	if err != nil {
		t.Fatal(err)
	}
	var texts []string
	for _, name := range strings.FieldsFunc(string(buf[:n]), func(r rune) bool { return r == 0 }) {
		value := make([]byte, 64<<10)
		n, err := unix.Lgetxattr(path, name, value)
		if err != nil {
			t.Fatal(err)
		}
		texts = append(texts, fmt.Sprintf(" %s=%x", name, sha256.Sum256(value[:n])))
	}
	sort.Strings(texts)
	return strings.Join(texts, "")
}

// compareByRsync lets rsync report every difference.
func compareByRsync(t *testing.T, src, dst string) {
	t.Helper()
	out, err := exec.Command("rsync", "-aHAXnci", "--numeric-ids", "--delete", src+"/", dst+"/").CombinedOutput()
	if err != nil || len(bytes.TrimSpace(out)) > 0 {
		t.Errorf("rsync: %v\n%s", err, out)
	}
}

func compareSnapshots(t *testing.T, want, got map[string]string) {
	t.Helper()
	for path, text := range want {
		if got[path] != text {
			t.Errorf("%s\n want %s\n got  %s", quoted(path), text, got[path])
		}
	}
	for path := range got {
		if want[path] == "" {
			t.Errorf("%s should not be there", quoted(path))
		}
	}
}
