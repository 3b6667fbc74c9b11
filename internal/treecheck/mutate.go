package treecheck

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"

	"golang.org/x/sys/unix"
)

// Mutate makes n random changes to the tree at root and returns what they were.
// Only Options.Flags and Options.Deep matter.
func Mutate(root string, seed uint64, n int, o Options) ([]string, error) {
	m, err := NewMutator(root, seed, o)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	var log []string
	for range n {
		what, err := m.Change()
		if err != nil {
			return log, err
		}
		log = append(log, what)
	}
	return log, nil
}

// Mutator changes a tree bit by bit. It is for one goroutine. Nothing else may
// change the tree meanwhile, but anything may read it.
type Mutator struct {
	root    int
	path    string
	r       *rand.Rand
	options Options
	open    []int // by the change that goes on
	buf     []byte
}

// NewMutator opens the directory root.
func NewMutator(root string, seed uint64, o Options) (*Mutator, error) {
	fd, err := unix.Open(root, dirFlags, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open directory", Path: root, Err: err}
	}
	return &Mutator{root: fd, path: root, r: rand.New(rand.NewPCG(seed, 4)), options: o, buf: make([]byte, 64<<10)}, nil
}

// Close lets go of the tree.
func (m *Mutator) Close() error { return unix.Close(m.root) }

// change is one way to change a tree. It returns what it did to what.
type change struct {
	name string
	do   func(m *Mutator) (string, error)
}

// errNothing is that there is nothing in the tree to change in this way.
var errNothing = errors.New("nothing suitable")

// Change makes one random change and tells which. Those that cannot be made
// (a name is taken, a file is immutable) are passed over.
func (m *Mutator) Change() (string, error) {
	for range 1000 {
		c := pickOne(m.r, m.changes())
		what, err := m.attempt(c)
		if err != nil || what != "" {
			return what, err
		}
	}
	return "", fmt.Errorf("change tree %q: nothing can be changed", m.path)
}

// attempt returns "" if the change cannot be made here.
func (m *Mutator) attempt(c change) (string, error) {
	defer m.release()
	what, err := c.do(m)
	if unable(err) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("%s %s: %w", c.name, what, err)
	}
	return c.name + " " + what, nil
}

// unable reports whether err is one that a random change may meet.
func unable(err error) bool {
	for _, e := range []error{
		errNothing, unix.EEXIST, unix.ENOENT, unix.ENOTEMPTY, unix.EISDIR, unix.ENOTDIR, unix.EINVAL, unix.EPERM,
		unix.EACCES, unix.ENODATA, unix.EMLINK, unix.EOPNOTSUPP, unix.ENOTTY, unix.ERANGE, unix.ETXTBSY,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func (m *Mutator) hold(fd int) int {
	m.open = append(m.open, fd)
	return fd
}

func (m *Mutator) release() {
	for _, fd := range m.open {
		unix.Close(fd)
	}
	m.open = m.open[:0]
}

func (m *Mutator) bytes(n int) []byte {
	b := make([]byte, n)
	for i := 0; i < n; i += 8 {
		v := m.r.Uint64()
		for j := i; j < min(i+8, n); j++ {
			b[j], v = byte(v), v>>8
		}
	}
	return b
}

func pickOne[T any](r *rand.Rand, from []T) T { return from[r.IntN(len(from))] }

// place is an entry of the tree, or the room for one.
type place struct {
	dir    int    // the directory it is in
	inside int    // of a directory that pickDir found: itself
	name   string // in dir; "." of the root
	path   string
	st     unix.Stat_t
}

func (p place) String() string { return quoted(p.path) }

// pickDir is a random directory, the root among them.
func (m *Mutator) pickDir() (place, error) {
	at := place{dir: m.root, inside: m.root, name: "."}
	for {
		below, err := m.below(at, isDir)
		if errors.Is(err, errNothing) || err == nil && m.r.IntN(3) == 0 {
			return at, nil
		}
		if err != nil {
			return at, err
		}
		at = below
	}
}

// pickAny is a random entry other than the root.
func (m *Mutator) pickAny() (place, error) {
	at, err := m.below(place{inside: m.root}, anything)
	for err == nil && isDir(&at.st) && m.r.IntN(5) > 0 {
		below, err := m.below(at, anything)
		if errors.Is(err, errNothing) {
			return at, nil
		}
		if err != nil {
			return at, err
		}
		at = below
	}
	return at, err
}

// pick is a random entry that suits, if chance finds one.
func (m *Mutator) pick(suits func(st *unix.Stat_t) bool) (place, error) {
	for range 20 {
		p, err := m.pickAny()
		if err != nil || suits(&p.st) {
			return p, err
		}
	}
	return place{}, errNothing
}

func anything(*unix.Stat_t) bool { return true }

// below is a random entry of the directory at that suits; with Options.Deep
// mostly that of the longest name, which leads along the deep branch.
func (m *Mutator) below(at place, suits func(st *unix.Stat_t) bool) (place, error) {
	names, err := list(at.inside, m.buf)
	if err != nil {
		return at, err
	}
	deep := m.options.Deep && m.r.IntN(4) > 0
	for len(names) > 0 {
		i := m.r.IntN(len(names))
		if deep {
			i = longest(names)
		}
		p := place{dir: at.inside, name: names[i], path: join(at.path, names[i])}
		if err := unix.Fstatat(p.dir, p.name, &p.st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return p, err
		}
		if !suits(&p.st) {
			names[i] = names[len(names)-1]
			names, deep = names[:len(names)-1], false
			continue
		}
		if isDir(&p.st) {
			fd, err := unix.Openat(p.dir, p.name, dirFlags, 0)
			if err != nil {
				return p, err
			}
			p.inside = m.hold(fd)
		}
		return p, nil
	}
	return at, errNothing
}

func longest(names []string) (at int) {
	for i, name := range names {
		if len(name) > len(names[at]) {
			at = i
		}
	}
	return at
}
