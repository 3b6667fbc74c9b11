package files

import (
	"errors"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// openLevels bounds the descriptors that a trail holds.
const openLevels = 128

// trail is a way from a root directory downwards, a descriptor at each level.
// However deep it gets, only the deepest levels stay open; the others are
// opened again on the way back. It never follows a symbolic link and never
// leaves the root's mount.
type trail struct {
	fds   []int // fds[0] is the root; -1 is closed for now
	names []string
	bytes int // length of names as a path
	buf   []byte
}

// newTrail starts at root and takes it over.
func newTrail(root int) *trail {
	return &trail{fds: []int{root}, buf: make([]byte, 64<<10)}
}

// at returns a trail to the directory at names, with the same root. It is ended
// by closeBranch, and then the root is still open.
func (t *trail) at(names []string) (*trail, error) {
	b := &trail{fds: make([]int, len(names)+1), names: slices.Clone(names), buf: t.buf}
	for i := range b.fds {
		b.fds[i] = -1
	}
	b.fds[0] = t.fds[0]
	for _, name := range names {
		b.bytes += len(name) + 1
	}
	if len(names) == 0 {
		return b, nil
	}
	fd, err := openDir(t.fds[0], names)
	b.fds[len(names)] = fd
	return b, err
}

// closeBranch closes all but the root.
func (t *trail) closeBranch() {
	for i := range t.fds[1:] {
		t.shut(i + 1)
	}
}

// push goes down to the directory name.
func (t *trail) push(name string) error {
	dir, err := t.fd()
	if err != nil {
		return err
	}
	fd, err := openBeneath(dir, name, dirFlags, 0)
	if err != nil {
		return err
	}
	t.fds = append(t.fds, fd)
	t.names = append(t.names, name)
	t.bytes += len(name) + 1
	if i := len(t.fds) - openLevels; i > 0 {
		t.shut(i)
	}
	return nil
}

// pop goes back up.
func (t *trail) pop() {
	last := len(t.names)
	t.shut(last)
	t.fds = t.fds[:last]
	t.bytes -= len(t.names[last-1]) + 1
	t.names = t.names[:last-1]
}

func (t *trail) shut(level int) {
	if t.fds[level] >= 0 {
		unix.Close(t.fds[level])
		t.fds[level] = -1
	}
}

// close ends the trail, its root included.
func (t *trail) close() {
	for i := range t.fds {
		t.shut(i)
	}
}

// fd is the directory at the end of the trail, valid until push, pop or close.
func (t *trail) fd() (int, error) {
	last := len(t.fds) - 1
	if t.fds[last] >= 0 {
		return t.fds[last], nil
	}
	if err := t.reopen(max(1, last-openLevels/2)); err != nil {
		return -1, err
	}
	return t.fds[last], nil
}

// reopen opens all levels from first on, which are closed.
func (t *trail) reopen(first int) error {
	fd, err := openDir(t.fds[0], t.names[:first-1])
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for i := first; i < len(t.fds); i++ {
		if fd, err = openBeneath(fd, t.names[i-1], dirFlags, 0); err != nil {
			return err
		}
		t.shut(i)
		t.fds[i] = fd
	}
	return nil
}

// path is that of name in the directory at the end of the trail.
func (t *trail) path(name string) string { return joinPath(t.names, name) }

// here is the path of the directory at the end of the trail.
func (t *trail) here() string { return strings.Join(t.names, "/") }

// list returns the names in the directory at the end of the trail, sorted. It
// can be called once after each push.
func (t *trail) list() ([]string, error) {
	fd, err := t.fd()
	if err != nil {
		return nil, err
	}
	var names []string
	for {
		n, err := unix.ReadDirent(fd, t.buf)
		if err != nil {
			return nil, err
		}
		if n == 0 {
			slices.Sort(names)
			return names, nil
		}
		_, _, names = unix.ParseDirent(t.buf[:n], -1, names)
	}
}

// stat is lstat(2) of name in the directory at the end of the trail.
func (t *trail) stat(name string) (st unix.Stat_t, err error) {
	fd, err := t.fd()
	if err != nil {
		return st, err
	}
	err = unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	return st, err
}

// remove deletes name with all beneath it.
func (t *trail) remove(name string) error {
	fd, err := t.fd()
	if err != nil {
		return err
	}
	if err := unix.Unlinkat(fd, name, 0); !errors.Is(err, unix.EISDIR) {
		return err
	}
	if err := t.push(name); err != nil {
		return err
	}
	if err := t.empty(); err != nil {
		return err
	}
	t.pop()
	if fd, err = t.fd(); err != nil {
		return err
	}
	return unix.Unlinkat(fd, name, unix.AT_REMOVEDIR)
}

// empty deletes everything in the directory at the end of the trail.
func (t *trail) empty() error {
	names, err := t.list()
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := t.remove(name); err != nil {
			return err
		}
	}
	return nil
}
