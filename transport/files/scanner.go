package files

import (
	"errors"
	"slices"
	"time"

	"github.com/vzkit/vzkit/internal/fault"
	"golang.org/x/sys/unix"
)

// errReplaced is the vanishing of a name whose place another entry has taken.
var errReplaced = errors.New("replaced meanwhile")

type inode struct{ dev, ino uint64 }

// leader is the first of an inode's hard links that the pass came by.
type leader struct {
	path string
	sent bool // so that the receiver has a new inode there
}

// scanner walks the tree depth first, compares it with the nodes and hands what
// differs to the sender.
type scanner struct {
	*sender
	*trail
	links map[inode]leader
}

func (s *scanner) root(n *node) error {
	if err := s.directory(n); err != nil {
		return pathError("read directory", "", err)
	}
	return nil
}

// directory handles the one at the end of the trail with all beneath it. An
// error without a path means that it was not sent.
func (s *scanner) directory(n *node) error {
	seen := time.Now()
	st, err := s.stat(".")
	if err != nil {
		return err
	}
	names, err := s.list()
	if err != nil {
		return err
	}
	s.stats.Entries++
	if n.changed(&st) {
		if err := s.object(s.trail, ".", s.here(), &st); err != nil {
			return err
		}
	}
	n.record(&st, seen)
	if err := s.forget(n, names); err != nil {
		return err
	}
	for _, name := range names {
		if err := s.child(n, name); err != nil {
			return err
		}
	}
	return nil
}

// forget deletes what the receiver has and names lacks, before anything new
// takes space.
func (s *scanner) forget(dir *node, names []string) error {
	var lost []string
	for name := range dir.children {
		if _, found := slices.BinarySearch(names, name); !found {
			lost = append(lost, name)
		}
	}
	slices.Sort(lost)
	for _, name := range lost {
		if err := s.drop(dir, name); err != nil {
			return err
		}
	}
	return nil
}

// drop deletes an entry that the receiver has.
func (s *scanner) drop(dir *node, name string) error {
	delete(dir.children, name)
	return s.delete(s.path(name))
}

// child handles one entry of the directory at the end of the trail.
func (s *scanner) child(dir *node, name string) error {
	if s.bytes+len(name) > maxPath {
		return fault.New(fault.Copy, "path %s is too long", quoted(s.path(name))).
			WithHint("Paths in the container may have at most %d bytes.", maxPath)
	}
	n := dir.children[name]
	if n == nil {
		n = &node{}
	}
	err := s.visit(n, name)
	if err == nil {
		dir.children[name] = n
		return nil
	}
	return s.missing(dir, name, err)
}

func (s *scanner) visit(n *node, name string) error {
	if err := interrupted(s.ctx); err != nil {
		return err
	}
	seen := time.Now()
	st, err := s.stat(name)
	if err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return s.leaf(n, name, &st, seen)
	}
	if err := s.push(name); err != nil {
		return err
	}
	defer s.pop()
	return s.directory(n)
}

// missing decides about an entry that could not be read: one that vanished
// under our eyes is as good as deleted, unless nothing should move any more.
func (s *scanner) missing(dir *node, name string, err error) error {
	var has *fault.Error
	if errors.As(err, &has) || !gone(err) && !errors.Is(err, errReplaced) {
		return pathError("read", s.path(name), err)
	}
	if s.Frozen {
		return fault.New(fault.Copy, "%s vanished while frozen: %v", quoted(s.path(name)), err)
	}
	if dir.children[name] == nil {
		return nil
	}
	return s.drop(dir, name)
}

// leaf handles what is no directory.
func (s *scanner) leaf(n *node, name string, st *unix.Stat_t, seen time.Time) error {
	changed := n.changed(st) || s.always(st)
	first, linked := s.links[inode{st.Dev, st.Ino}]
	var err error
	switch {
	case linked && (changed || first.sent):
		err = s.link(s.path(name), first.path)
	case changed && st.Mode&unix.S_IFMT == unix.S_IFREG:
		err = s.regular(name, st)
	case changed:
		err = s.object(s.trail, name, s.path(name), st)
	}
	if err != nil {
		return err
	}
	if changed {
		n.record(st, seen)
	}
	s.stats.Entries++
	if !linked && st.Nlink > 1 {
		s.links[inode{st.Dev, st.Ino}] = leader{s.path(name), changed}
	}
	return nil
}

func (s *scanner) always(st *unix.Stat_t) bool {
	return s.Always != nil && st.Mode&unix.S_IFMT == unix.S_IFREG && s.Always(st.Dev, st.Ino)
}

// regular sends a file with its content and sets st to what it sent.
func (s *scanner) regular(name string, st *unix.Stat_t) error {
	dir, err := s.fd()
	if err != nil {
		return err
	}
	fd, err := openBeneath(dir, name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOATIME, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	before := inode{st.Dev, st.Ino}
	if err := unix.Fstat(fd, st); err != nil {
		return err
	}
	if before != (inode{st.Dev, st.Ino}) || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return errReplaced
	}
	path := s.path(name)
	if err := s.object(s.trail, name, path, st); err != nil {
		return err
	}
	return s.content(fd, path, st.Size)
}
