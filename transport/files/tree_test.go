package files

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// gardener grows a tree and changes it at random.
type gardener struct {
	t    *testing.T
	r    *rand.Rand
	root string
	n    int
}

func newGardener(t *testing.T, seed uint64) *gardener {
	return &gardener{t: t, r: rand.New(rand.NewPCG(seed, 2)), root: t.TempDir()}
}

// must fails the test unless err is one that a random change may meet.
func (g *gardener) must(err error) {
	if err != nil && !os.IsNotExist(err) && !os.IsExist(err) {
		g.t.Helper()
		g.t.Fatal(err)
	}
}

// paths are those of the tree; dirs alone, with the root, or the rest alone.
func (g *gardener) paths(dirs bool) []string {
	var all []string
	g.must(filepath.WalkDir(g.root, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() == dirs {
			all = append(all, path)
		}
		return err
	}))
	return all
}

func (g *gardener) dir() string {
	all := g.paths(true)
	return all[g.r.IntN(len(all))]
}

func (g *gardener) leaf() string {
	all := g.paths(false)
	if len(all) == 0 {
		return filepath.Join(g.root, "no", "leaf")
	}
	return all[g.r.IntN(len(all))]
}

// any is a path other than the root.
func (g *gardener) any() string {
	if d := g.dir(); g.r.IntN(3) == 0 && d != g.root {
		return d
	}
	return g.leaf()
}

// file is a regular file, or "" if chance does not find one.
func (g *gardener) file() string {
	for range 8 {
		path := g.leaf()
		if st, err := os.Lstat(path); err == nil && st.Mode().IsRegular() {
			return path
		}
	}
	return ""
}

func (g *gardener) fresh() string {
	g.n++
	names := []string{"f%d", "ü%d", "\xff\xfe%d", "new\nline%d", " %d ", "-%d", ".hidden%d"}
	return filepath.Join(g.dir(), fmt.Sprintf(names[g.r.IntN(len(names))], g.n))
}

func (g *gardener) bytes(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(g.r.Uint32())
	}
	return b
}

// changes are all that a gardener does; each keeps the tree small.
var changes = []func(g *gardener){
	func(g *gardener) { g.must(os.WriteFile(g.fresh(), g.bytes(g.r.IntN(9000)), 0o644)) },
	func(g *gardener) { g.must(os.WriteFile(g.fresh(), nil, 0o600)) },
	func(g *gardener) { g.sparse(g.fresh()) },
	func(g *gardener) { g.must(os.Mkdir(g.fresh(), 0o755)) },
	func(g *gardener) { g.must(os.Mkdir(g.fresh(), 0o755)) },
	func(g *gardener) { g.must(os.Symlink("/etc/../nowhere", g.fresh())) },
	func(g *gardener) {
		kinds := []uint32{unix.S_IFIFO, unix.S_IFSOCK, unix.S_IFCHR, unix.S_IFBLK}
		g.must(unix.Mknod(g.fresh(), kinds[g.r.IntN(4)]|0o640, int(unix.Mkdev(g.r.Uint32N(4096), g.r.Uint32N(1<<20)))))
	},
	func(g *gardener) { g.must(os.Link(g.leaf(), g.fresh())) },
	func(g *gardener) { g.must(os.Link(g.leaf(), g.fresh())) },
	func(g *gardener) { g.must(os.Remove(g.leaf())) },
	func(g *gardener) { g.must(os.RemoveAll(g.any())) },
	(*gardener).rename,
	(*gardener).rename,
	(*gardener).overwrite,
	(*gardener).overwrite,
	(*gardener).truncate,
	(*gardener).punch,
	(*gardener).unshare,
	(*gardener).retype,
	func(g *gardener) { g.must(os.Lchown(g.any(), g.r.IntN(1<<31), g.r.IntN(1<<31))) },
	(*gardener).chmod,
	(*gardener).touch,
	(*gardener).attribute,
	(*gardener).acl,
}

func (g *gardener) mutate(n int) {
	for range n {
		changes[g.r.IntN(len(changes))](g)
	}
}

func (g *gardener) sparse(path string) {
	f, err := os.Create(path)
	g.must(err)
	defer f.Close()
	for range g.r.IntN(4) {
		_, err := f.WriteAt(g.bytes(1+g.r.IntN(5000)), int64(g.r.IntN(1<<20)))
		g.must(err)
	}
	g.must(f.Truncate(int64(g.r.IntN(1 << 21))))
}

// rename may replace a file or an empty directory.
func (g *gardener) rename() {
	to := g.fresh()
	if g.r.IntN(2) == 0 {
		to = g.any()
	}
	_ = os.Rename(g.any(), to) // into itself, over a full directory: not now
}

// overwrite changes content, half the time behind a restored mtime.
func (g *gardener) overwrite() {
	path := g.file()
	if path == "" {
		return
	}
	st, err := os.Lstat(path)
	g.must(err)
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	g.must(err)
	defer f.Close()
	_, err = f.WriteAt(g.bytes(1+g.r.IntN(100)), st.Size()/2)
	g.must(err)
	if g.r.IntN(2) == 0 {
		g.must(os.Chtimes(path, time.Time{}, st.ModTime()))
	}
}

func (g *gardener) truncate() {
	if path := g.file(); path != "" {
		g.must(os.Truncate(path, int64(g.r.IntN(20000))))
	}
}

func (g *gardener) punch() {
	path := g.file()
	if path == "" {
		return
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	g.must(err)
	defer f.Close()
	mode := uint32(unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE)
	g.must(unix.Fallocate(int(f.Fd()), mode, int64(g.r.IntN(3))<<12, int64(1+g.r.IntN(5))<<12))
}

// unshare breaks a hard link as an editor does: a new file takes the name.
func (g *gardener) unshare() {
	path := g.file()
	if path == "" {
		return
	}
	b, err := os.ReadFile(path)
	g.must(err)
	tmp := g.fresh()
	g.must(os.WriteFile(tmp, append(b, "changed"...), 0o644))
	g.must(os.Rename(tmp, path))
}

// retype puts another type in the place of an entry.
func (g *gardener) retype() {
	path := g.any()
	g.must(os.RemoveAll(path))
	switch g.r.IntN(4) {
	case 0:
		g.must(os.WriteFile(path, g.bytes(10), 0o644))
	case 1:
		g.must(os.Mkdir(path, 0o700))
		g.must(os.WriteFile(path+"/inside", g.bytes(10), 0o644))
	case 2:
		g.must(os.Symlink("..", path))
	case 3:
		g.must(unix.Mkfifo(path, 0o622))
	}
}

func (g *gardener) chmod() {
	if path := g.any(); !isSymlink(path) {
		g.must(unix.Chmod(path, g.r.Uint32N(0o10000)))
	}
}

func isSymlink(path string) bool {
	st, err := os.Lstat(path)
	return err != nil || st.Mode()&os.ModeSymlink != 0
}

// touch sets times on anything, before 1970 too.
func (g *gardener) touch() {
	ts := []unix.Timespec{
		{Sec: g.r.Int64N(1 << 33), Nsec: g.r.Int64N(1e9)},
		{Sec: g.r.Int64N(1<<33) - 1<<31, Nsec: g.r.Int64N(1e9)},
	}
	g.must(unix.UtimesNanoAt(unix.AT_FDCWD, g.any(), ts, unix.AT_SYMLINK_NOFOLLOW))
}

func (g *gardener) attribute() {
	path := g.any()
	name := fmt.Sprintf("trusted.t%d", g.r.IntN(3))
	if !isSymlink(path) && g.file() == path {
		name = []string{"user.u\xff", "security.capability", "security.other"}[g.r.IntN(3)]
	}
	value := g.bytes(g.r.IntN(200))
	if name == "security.capability" {
		value = capability(g.r.IntN(2) * 100000)
	}
	if g.r.IntN(3) == 0 {
		_ = unix.Lremovexattr(path, name) // it may have none
		return
	}
	g.must(unix.Lsetxattr(path, name, value, 0))
}

// capability is cap_net_raw=ep as in linux/capability.h, of revision 3 for the
// root of a user namespace, else of revision 2.
func capability(root int) []byte {
	le := binary.LittleEndian
	b := make([]byte, 20)
	le.PutUint32(b, 0x02000001)
	le.PutUint32(b[4:], 1<<13)
	if root != 0 {
		le.PutUint32(b, 0x03000001)
		b = le.AppendUint32(b, uint32(root))
	}
	return b
}

// acl sets an access or a default ACL with one named user.
func (g *gardener) acl() {
	path := g.any()
	if isSymlink(path) {
		return
	}
	name := "system.posix_acl_access"
	if st, err := os.Lstat(path); err == nil && st.IsDir() && g.r.IntN(2) == 0 {
		name = "system.posix_acl_default"
	}
	if g.r.IntN(4) == 0 {
		_ = unix.Lremovexattr(path, name) // it may have none
		return
	}
	g.must(unix.Lsetxattr(path, name, aclFor(g.r.Uint32N(1<<31)), 0))
}

// aclFor is u::rwx,u:UID:r--,g::r-x,m::r-x,o::--- as in linux/posix_acl_xattr.h.
func aclFor(uid uint32) []byte {
	b := binary.LittleEndian.AppendUint32(nil, 2)
	for _, e := range []struct {
		tag, perm uint16
		id        uint32
	}{{1, 7, noID}, {2, 4, uid}, {4, 5, noID}, {16, 5, noID}, {32, 0, noID}} {
		b = binary.LittleEndian.AppendUint16(b, e.tag)
		b = binary.LittleEndian.AppendUint16(b, e.perm)
		b = binary.LittleEndian.AppendUint32(b, e.id)
	}
	return b
}
