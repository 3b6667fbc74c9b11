package treecheck

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// Options say what there is besides what every tree has.
type Options struct {
	Entries int  // how many changes grow the tree; 0 is 60
	Crowd   int  // so many entries in one more directory
	Flags   bool // inode flags and project identifiers; see Unseal
	Deep    bool // a branch beyond PATH_MAX, where rsync cannot follow
	Large   bool // files of up to 16 MiB around the borders of blocks
}

// Generate fills the directory root, which exists. It has at least one of each
// type, and the rest by chance.
func Generate(root string, seed uint64, o Options) error {
	m, err := NewMutator(root, seed, o)
	if err != nil {
		return err
	}
	defer m.Close()
	if err := m.generate(); err != nil {
		return fmt.Errorf("generate tree %d in %q: %w", seed, root, err)
	}
	return nil
}

func (m *Mutator) generate() error {
	for _, step := range []func() error{m.onceEach, m.deep, m.crowd, m.large} {
		if err := step(); err != nil {
			return err
		}
	}
	n := m.options.Entries
	if n == 0 {
		n = 60
	}
	for range n {
		if _, err := m.attempt(pickOne(m.r, m.step())); err != nil {
			return err
		}
	}
	return nil
}

// step is what the tree grows by next: half of it are new entries.
func (m *Mutator) step() []change {
	switch m.r.IntN(6) {
	case 0:
		return m.changes()
	case 1, 2:
		return m.described()
	}
	return growth
}

// onceEach makes one entry of each kind.
func (m *Mutator) onceEach() error {
	for _, c := range growth {
		if _, err := m.attempt(c); err != nil {
			return err
		}
	}
	return nil
}

// deep makes directories with the longest names beyond PATH_MAX, something in
// each, and a hard link across them.
func (m *Mutator) deep() error {
	if !m.options.Deep {
		return nil
	}
	at, err := unix.Dup(m.root)
	if err != nil {
		return err
	}
	defer func() { unix.Close(at) }()
	for i := range unix.PathMax/255 + 3 {
		name := fmt.Sprintf("%0*d", 255, i)
		if err := unix.Mkdirat(at, name, 0o750); err != nil {
			return err
		}
		next, err := unix.Openat(at, name, dirFlags, 0)
		if err != nil {
			return err
		}
		unix.Close(at)
		at = next
		if err := m.writeNew(at, "content", m.bytes(m.r.IntN(5000))); err != nil {
			return err
		}
		if err := unix.Symlinkat("..", at, "link"); err != nil {
			return err
		}
	}
	return unix.Linkat(at, "content", m.root, "from the deep", 0)
}

// crowd makes a directory of many empty files.
func (m *Mutator) crowd() error {
	if m.options.Crowd == 0 {
		return nil
	}
	if err := unix.Mkdirat(m.root, "crowd", 0o755); err != nil {
		return err
	}
	dir, err := unix.Openat(m.root, "crowd", dirFlags, 0)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	for i := range m.options.Crowd {
		name := fmt.Sprintf("entry-%d", i)
		if err := unix.Mknodat(dir, name, unix.S_IFREG|0o644, 0); err != nil {
			return err
		}
	}
	return nil
}

// large makes files whose size or holes are around the borders of pages,
// blocks and frames.
func (m *Mutator) large() error {
	if !m.options.Large {
		return nil
	}
	for _, border := range []int{4 << 10, 64 << 10, 256 << 10, 1 << 20} {
		for _, size := range []int{border - 1, border, border + 1} {
			if err := m.writeNew(m.root, fmt.Sprintf("size-%d", size), m.bytes(size)); err != nil {
				return err
			}
		}
	}
	return m.holey("holey", 16<<20)
}

// holey makes a sparse file with data at both ends and across a border.
func (m *Mutator) holey(name string, size int64) error {
	fd, err := unix.Openat(m.root, name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for _, at := range []int64{0, size/2 - 100, size - 5000} {
		if err := pwriteAll(fd, m.bytes(5000), at); err != nil {
			return err
		}
	}
	return nil
}

// growth makes new entries, one of each kind.
var growth = []change{
	{"directory", (*Mutator).makeDir},
	{"directory", (*Mutator).makeDir},
	{"file", (*Mutator).makeFile},
	{"file", (*Mutator).makeFile},
	{"empty file", (*Mutator).makeEmpty},
	{"sparse file", (*Mutator).makeSparse},
	{"symbolic link", (*Mutator).makeSymlink},
	{"FIFO", makeNode(unix.S_IFIFO)},
	{"socket", makeNode(unix.S_IFSOCK)},
	{"character device", makeNode(unix.S_IFCHR)},
	{"block device", makeNode(unix.S_IFBLK)},
	{"hard link", (*Mutator).makeLink},
	{"copy", (*Mutator).copyFile},
}

var namePatterns = []string{
	"f%d", "ü%d", "\xff\xfe%d", "new\nline%d", " %d ", "-%d", ".hidden%d", "..%d", "*[%d]?", `back\slash%d`, `\#012%d`, "~%d~",
}

// newPlace is a directory and a name that is likely free in it.
func (m *Mutator) newPlace() (place, error) {
	p, err := m.pickDir()
	if err != nil {
		return p, err
	}
	name := fmt.Sprintf(pickOne(m.r, namePatterns), m.r.IntN(1e6))
	if m.r.IntN(20) == 0 {
		name += strings.Repeat("l", 255-len(name))
	}
	return place{dir: p.inside, name: name, path: join(p.path, name)}, nil
}

func (m *Mutator) makeDir() (string, error) {
	p, err := m.newPlace()
	if err != nil {
		return "", err
	}
	return p.String(), unix.Mkdirat(p.dir, p.name, m.r.Uint32N(0o1000)|0o700)
}

func (m *Mutator) makeFile() (string, error) {
	p, err := m.newPlace()
	if err != nil {
		return "", err
	}
	return p.String(), m.writeNew(p.dir, p.name, m.bytes(1+m.r.IntN(9000)))
}

func (m *Mutator) makeEmpty() (string, error) {
	p, err := m.newPlace()
	if err != nil {
		return "", err
	}
	return p.String(), m.writeNew(p.dir, p.name, nil)
}

func (m *Mutator) makeSparse() (string, error) {
	p, err := m.newPlace()
	if err != nil {
		return "", err
	}
	fd, err := unix.Openat(p.dir, p.name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	for range m.r.IntN(4) {
		if err := pwriteAll(fd, m.bytes(1+m.r.IntN(5000)), m.r.Int64N(1<<20)); err != nil {
			return "", err
		}
	}
	return p.String(), unix.Ftruncate(fd, m.r.Int64N(4<<20))
}

func (m *Mutator) makeSymlink() (string, error) {
	p, err := m.newPlace()
	if err != nil {
		return "", err
	}
	return p.String(), unix.Symlinkat(m.target(), p.dir, p.name)
}

// target is what a symbolic link leads to, or does not.
func (m *Mutator) target() string {
	return pickOne(m.r, []string{
		"nowhere", "/etc/../nowhere", "..", ".", "/", "\xff\n", "a//b/", strings.Repeat("long/", 60),
		strings.Repeat("x", 4095), fmt.Sprint(m.r.Uint64()),
	})
}

func makeNode(kind uint32) func(m *Mutator) (string, error) {
	return func(m *Mutator) (string, error) {
		p, err := m.newPlace()
		if err != nil {
			return "", err
		}
		rdev := 0
		if kind == unix.S_IFCHR || kind == unix.S_IFBLK {
			rdev = int(unix.Mkdev(m.r.Uint32N(4096), m.r.Uint32N(1<<20)))
		}
		return p.String(), unix.Mknodat(p.dir, p.name, kind|m.r.Uint32N(0o1000), rdev)
	}
}

func (m *Mutator) makeLink() (string, error) {
	from, err := m.pick(func(st *unix.Stat_t) bool { return !isDir(st) })
	if err != nil {
		return "", err
	}
	to, err := m.newPlace()
	if err != nil {
		return "", err
	}
	return to.String() + " of " + from.String(), unix.Linkat(from.dir, from.name, to.dir, to.name, 0)
}

// copyFile copies content and nothing else.
func (m *Mutator) copyFile() (string, error) {
	from, err := m.pick(isRegular)
	if err != nil {
		return "", err
	}
	to, err := m.newPlace()
	if err != nil {
		return "", err
	}
	b, err := m.content(from)
	if err != nil {
		return "", err
	}
	return to.String() + " of " + from.String(), m.writeNew(to.dir, to.name, b)
}

// content reads the beginning of a file.
func (m *Mutator) content(p place) (b []byte, err error) {
	err = withFile(p.dir, p.name, unix.O_RDONLY, func(fd int) error {
		b = make([]byte, min(p.st.Size, 2<<20))
		n, err := preadFull(fd, b, 0)
		b = b[:n]
		if p.st.Size == 0 {
			return nil
		}
		return err
	})
	return b, err
}

func (m *Mutator) writeNew(dir int, name string, content []byte) error {
	fd, err := unix.Openat(dir, name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return pwriteAll(fd, content, 0)
}

func pwriteAll(fd int, b []byte, at int64) error {
	for len(b) > 0 {
		n, err := unix.Pwrite(fd, b, at)
		if err != nil {
			return fmt.Errorf("write: %w", err)
		}
		b, at = b[n:], at+int64(n)
	}
	return nil
}
