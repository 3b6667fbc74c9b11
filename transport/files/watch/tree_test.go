package watch

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"go.uber.org/goleak"

	"github.com/vzkit/vzkit/internal/disktest"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	disktest.Use()
	goleak.VerifyTestMain(m)
}

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func okErrno(t testing.TB, e unix.Errno) {
	t.Helper()
	if e != 0 {
		t.Fatal(e)
	}
}

func itoa(n int) string { return strconv.Itoa(n) }

// with opens path and runs do; where that does not matter for do, the file is
// closed only when the test is over.
func with(t *testing.T, path string, flags int, do func(*testing.T, *os.File)) {
	t.Helper()
	f, err := os.OpenFile(path, flags, 0)
	ok(t, err)
	do(t, f)
	if unsafeToKeep[t.Name()] {
		ok(t, f.Close())
		return
	}
	t.Cleanup(func() { f.Close() })
}

// unsafeToKeep are the operations that only the close reports.
var unsafeToKeep = map[string]bool{
	"TestOperations/mapping,_unmapped": true,
	"TestOperations/io_submit,_closed": true,
}

// tree is a watched tree, the working directory of the test.
type tree struct {
	dir string
	w   *Watch
}

func newTree(t *testing.T) *tree {
	t.Helper()
	t.Chdir(t.TempDir())
	dir, err := os.Getwd()
	ok(t, err)
	ok(t, os.Mkdir("d", 0o755))
	ok(t, os.Mkdir("e", 0o755))
	ok(t, os.WriteFile("d/f", bytes.Repeat([]byte("0123456789"), 10000), 0o644))
	ok(t, os.WriteFile("d/g", []byte("0123456789"), 0o644))
	ok(t, os.Link("d/f", "e/link"))
	return &tree{dir: dir, w: start(t, dir)}
}

func start(t testing.TB, dir string) *Watch {
	t.Helper()
	root, err := os.Open(dir)
	ok(t, err)
	defer root.Close()
	w, err := Open(root)
	ok(t, err)
	t.Cleanup(func() { ok(t, w.Close()) })
	return w
}

// dirs are the inode numbers of all directories of the tree.
func (tr *tree) dirs() map[uint64]bool {
	all := map[uint64]bool{}
	filepath.WalkDir(tr.dir, func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			all[inode(p)] = true
		}
		return nil
	})
	return all
}

func (tr *tree) take(t testing.TB) Changes {
	t.Helper()
	dirs := tr.dirs()
	c, lost, err := tr.w.Take(func(dir uint64) bool { return dirs[dir] })
	ok(t, err)
	if lost {
		t.Fatal("lost")
	}
	return c
}

// inode returns 0 if there is no path.
func inode(path string) uint64 {
	var st unix.Stat_t
	if unix.Lstat(path, &st) != nil {
		return 0
	}
	return st.Ino
}

func (tr *tree) inodes(lists ...[]string) map[string]uint64 {
	all := map[string]uint64{}
	for _, paths := range lists {
		for _, p := range paths {
			all[p] = inode(p)
		}
	}
	return all
}

func (tr *tree) expect(t *testing.T, c Changes, o operation, before map[string]uint64) {
	t.Helper()
	for _, p := range o.entries {
		if !has(c, inode(filepath.Dir(p)), filepath.Base(p)) {
			t.Errorf("%q is not reported: %+v", p, c.Names)
		}
	}
	for _, p := range o.self {
		if _, ok := c.Names[before[p]]; !ok {
			t.Errorf("directory %q is not reported", p)
		}
	}
	for _, p := range o.files {
		ino := before[p]
		if ino == 0 {
			ino = inode(p)
		}
		if _, ok := c.Files[ino]; !ok {
			t.Errorf("inode of %q is not reported", p)
		}
	}
}

func has(c Changes, dir uint64, name string) bool {
	_, ok := c.Names[dir][name]
	return ok
}
