package files

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/internal/faultfs"
	"github.com/vzkit/vzkit/internal/treecheck"
	"golang.org/x/sys/unix"
)

const part = 256 << 10

// moveFaulty returns a mover whose source fails as hook says, and the directory
// beneath it.
func moveFaulty(t *testing.T, hook func(beneath string, c faultfs.Call) syscall.Errno) (m *mover, beneath string) {
	t.Helper()
	if err := faultfs.Missing(); err != nil {
		t.Skip("no FUSE here: ", err)
	}
	beneath, src := t.TempDir(), t.TempDir()
	write(t, beneath+"/d/file", strings.Repeat("content", part/2))
	write(t, beneath+"/d/small", "content")
	write(t, beneath+"/d/below/other", "content")
	write(t, beneath+"/z", "content")
	must(t, unix.Setxattr(beneath+"/d/file", "trusted.a", []byte("v"), 0))
	fs, err := faultfs.Mount(beneath, src, func(c faultfs.Call) syscall.Errno { return hook(beneath, c) })
	must(t, err)
	t.Cleanup(func() { must(t, fs.Unmount()) })
	return newMover(t, src), beneath
}

// TestReadErrors: whatever cannot be read is named, in live and frozen passes.
func TestReadErrors(t *testing.T) {
	for name, bad := range map[string]struct {
		path string
		call faultfs.Call
	}{
		"beginning of a file": {"d/file", faultfs.Call{Op: faultfs.Read}},
		"middle of a file":    {"d/file", faultfs.Call{Op: faultfs.Read, Offset: 3 * part}},
		"small file":          {"d/small", faultfs.Call{Op: faultfs.Read}},
		"opening a file":      {"d/small", faultfs.Call{Op: faultfs.Open}},
		"directory":           {"d/below", faultfs.Call{Op: faultfs.List}},
		"attribute":           {"d/file", faultfs.Call{Op: faultfs.Getxattr, Attr: "trusted.a"}},
	} {
		for _, frozen := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, frozen %v", name, frozen), func(t *testing.T) {
				m, _ := moveFaulty(t, func(_ string, c faultfs.Call) syscall.Errno {
					if c.Op == bad.call.Op && c.Path == bad.path && c.Attr == bad.call.Attr && c.Offset+c.Length >= bad.call.Offset {
						return syscall.EIO
					}
					return faultfs.OK
				})
				_, err := m.source.Pass(t.Context(), &tape{}, PassOptions{Pass: 1, Frozen: frozen})
				if fault.KindOf(err) != fault.Copy || !errors.Is(err, unix.EIO) || !strings.Contains(err.Error(), fmt.Sprintf("%q", bad.path)) {
					t.Errorf("err = %v", err)
				}
			})
		}
	}
}

// TestVanishes removes things in the middle of a live pass, which goes on; the
// frozen pass then deletes them.
func TestVanishes(t *testing.T) {
	for name, when := range map[string]struct {
		call faultfs.Call
		gone string
	}{
		"before it is opened":      {faultfs.Call{Op: faultfs.Open, Path: "d/small"}, "d/small"},
		"while it is read":         {faultfs.Call{Op: faultfs.Read, Path: "d/file"}, "d/file"},
		"between its attributes":   {faultfs.Call{Op: faultfs.Getxattr, Path: "d/file", Attr: "trusted.a"}, "d/file"},
		"a directory with all":     {faultfs.Call{Op: faultfs.List, Path: "d/below"}, "d/below"},
		"the directory it is in":   {faultfs.Call{Op: faultfs.Open, Path: "d/small"}, "d"},
		"after its directory read": {faultfs.Call{Op: faultfs.Open, Path: "d/file"}, "z"},
	} {
		t.Run(name, func(t *testing.T) {
			var once sync.Once
			m, beneath := moveFaulty(t, func(beneath string, c faultfs.Call) syscall.Errno {
				if c.Op == when.call.Op && c.Path == when.call.Path && c.Attr == when.call.Attr {
					once.Do(func() { must(t, os.RemoveAll(beneath+"/"+when.gone)) })
				}
				return faultfs.OK
			})
			m.pass(PassOptions{})
			if _, err := os.Lstat(beneath + "/" + when.gone); !errors.Is(err, os.ErrNotExist) {
				t.Fatalf("it never vanished: %v", err)
			}
			m.pass(PassOptions{})
			m.pass(PassOptions{Frozen: true})
			must(t, m.target.Finish())
			compareSnapshots(t, snap(t, beneath), snap(t, m.dst), treecheck.Atime) // the file system in between reads
		})
	}
}
