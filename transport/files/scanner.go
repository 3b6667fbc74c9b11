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

// arrival is where an inode with several names went.
type arrival struct {
	path string
	kept bool // it is the same inode at the receiver as before
}

// scanner compares the tree with the nodes and hands what differs to the sender.
type scanner struct {
	*sender
	*trail  // where it is
	src     *Source
	deep    bool                // all that is beneath a directory is looked at
	written map[uint64]struct{} // inodes that were seen to be, whatever their times say
	batch   *batch              // of the directory at the end of the trail
	aside   map[uint64]*apart   // by inode
	number  uint64              // of what was put aside last
	sent    map[uint64]arrival  // where inodes with several names went in this pass
	orphans []uint64            // inodes that have lost a name in this pass
	linked  map[uint64][]*node  // those with several names, if that was needed
	larges  []*large            // files whose sums are good if the pass is

	pending []pending // files that wait for a signature
	asked   uint32    // number of the last one
}

// directory looks at the one at the end of the trail with all beneath it. An
// error without a path means that it was not sent.
func (s *scanner) directory(d *directory) error {
	names, err := s.itself(d)
	if err != nil {
		return err
	}
	if err := s.forget(d, names); err != nil {
		return err
	}
	d.entries = slices.Grow(d.entries, max(0, len(names)-len(d.entries)))
	var below []*node
	for _, name := range names {
		n, err := s.child(d, name)
		if err != nil {
			return err
		}
		if n != nil && n.dir != nil && s.descends(n) {
			below = append(below, n)
		}
	}
	if err := s.endBatch(); err != nil {
		return err
	}
	for _, n := range below {
		if err := s.descend(d, n); err != nil {
			return err
		}
	}
	return nil
}

// descends tells whether all beneath a directory is to be looked at.
func (s *scanner) descends(n *node) bool { return s.deep || n.missing }

func (s *scanner) descend(d *directory, n *node) error {
	if n.dir == nil || n.parent != d { // moved since
		return nil
	}
	err := s.push(n.name)
	if err == nil {
		err = s.directory(n.dir)
		if berr := s.endBatch(); err == nil {
			err = berr
		}
		s.pop()
	}
	if err == nil {
		return nil
	}
	return s.vanished(n, s.path(n.name), err)
}

// itself sends the directory at the end of the trail if it has changed, and
// lists it.
func (s *scanner) itself(d *directory) (names []string, err error) {
	seen := time.Now()
	st, err := s.stat(".")
	if err != nil {
		return nil, err
	}
	if names, err = s.list(); err != nil {
		return nil, err
	}
	return names, s.metadata(d, &st, seen)
}

// metadata sends the directory at the end of the trail if it has changed.
func (s *scanner) metadata(d *directory, st *unix.Stat_t, seen time.Time) error {
	s.looked++
	if d.node.changed(st) {
		dir, err := s.fd()
		if err != nil {
			return err
		}
		if err := s.object(dir, ".", s.here(), st); err != nil {
			return err
		}
	}
	s.record(d.node, st, seen)
	return nil
}

// forget drops what the receiver has and names lacks, before anything new
// takes space.
func (s *scanner) forget(d *directory, names []string) error {
	var lost []*node
	for _, n := range d.entries {
		if _, found := slices.BinarySearch(names, n.name); !found {
			lost = append(lost, n)
		}
	}
	for _, n := range lost {
		if err := s.drop(d, n); err != nil {
			return err
		}
	}
	return nil
}

// child looks at one entry of the directory at the end of the trail, and
// returns its node: nil if it is not there.
func (s *scanner) child(d *directory, name string) (*node, error) {
	if s.bytes+len(name) > maxPath {
		return nil, fault.New(fault.Copy, "path %s is too long", quoted(s.path(name))).
			WithHint("Paths in the container may have at most %d bytes.", maxPath)
	}
	if err := fault.Ended(s.ctx); err != nil {
		return nil, err
	}
	n := d.find(name)
	seen := time.Now()
	st, err := s.stat(name)
	if err != nil {
		return nil, s.absent(d, n, name, err)
	}
	if n, err = s.identify(d, n, name, &st); err != nil {
		return nil, err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return n, s.subdirectory(d, n, &st)
	}
	if err := s.leaf(n, &st, seen); err != nil {
		return n, s.vanished(n, s.path(name), err)
	}
	return n, nil
}

// subdirectory prepares to descend. One that is only to be looked at itself is
// sent by its name.
func (s *scanner) subdirectory(d *directory, n *node, st *unix.Stat_t) error {
	if n.dir == nil {
		n.dir = &directory{node: n}
	}
	if s.descends(n) {
		return nil
	}
	if err := s.push(n.name); err != nil {
		return s.vanished(n, s.path(n.name), err)
	}
	defer s.pop()
	seen := time.Now()
	now, err := s.stat(".")
	if err == nil {
		err = s.metadata(n.dir, &now, seen)
	}
	if err != nil {
		return s.vanished(n, s.here(), err)
	}
	return nil
}

// absent handles a name that is not there any more.
func (s *scanner) absent(d *directory, n *node, name string, err error) error {
	if !gone(err) {
		return pathError("read", s.path(name), err)
	}
	if s.deep && s.Frozen {
		return fault.New(fault.Copy, "%s vanished while frozen: %v", quoted(s.path(name)), err)
	}
	if n == nil {
		return nil
	}
	return s.drop(d, n)
}

// vanished decides about an entry that could not be read: one that vanished
// under our eyes is the next pass's, unless nothing should move any more.
func (s *scanner) vanished(n *node, path string, err error) error {
	if err := s.mayVanish(path, err); err != nil {
		return err
	}
	n.digest = 0
	return nil
}

func (s *sender) mayVanish(path string, err error) error {
	var has *fault.Error
	if errors.As(err, &has) || !gone(err) && !errors.Is(err, errReplaced) {
		return pathError("read", path, err)
	}
	if s.Frozen {
		return fault.New(fault.Copy, "%s vanished while frozen: %v", quoted(path), err)
	}
	return nil
}

// leaf looks at what is no directory.
func (s *scanner) leaf(n *node, st *unix.Stat_t, seen time.Time) error {
	if n.pass == int32(s.Pass) {
		return nil // a path goes once in a pass
	}
	n.pass = int32(s.Pass)
	s.looked++
	mapped := s.Frozen && s.Writers[[2]uint64{st.Dev, st.Ino}] // else its times tell
	if _, written := s.written[st.Ino]; !n.changed(st) && !mapped && !written {
		return nil
	}
	if st.Nlink > 1 {
		return s.oneOfSeveral(n, st, seen)
	}
	return s.content(n, st, seen)
}

// content sends what is no directory.
func (s *scanner) content(n *node, st *unix.Stat_t, seen time.Time) error {
	kind := st.Mode & unix.S_IFMT
	switch {
	case kind == unix.S_IFREG && (st.Size > smallFile || sparse(st)):
		return s.large(n, st)
	case kind == unix.S_IFREG && st.Nlink > 1:
		return s.alone(n, st)
	case kind == unix.S_IFREG:
		return s.collect(n, st)
	}
	dir, err := s.fd()
	if err == nil {
		err = s.object(dir, n.name, s.path(n.name), st)
	}
	if err == nil {
		s.record(n, st, seen)
	}
	return err
}

// record notes that an entry has been sent as st shows it.
func (s *scanner) record(n *node, st *unix.Stat_t, seen time.Time) {
	if n.ino != st.Ino {
		s.src.inodes.drop(n)
	}
	n.record(st, seen, s.src.grain)
	s.src.inodes.put(n)
}

// oneOfSeveral sends a name of an inode that may have others: its content once,
// the other names as links. A regular file stays the same inode at the receiver,
// with all its names; of other types it becomes a new one.
func (s *scanner) oneOfSeveral(n *node, st *unix.Stat_t, seen time.Time) error {
	regular, same := st.Mode&unix.S_IFMT == unix.S_IFREG, n.same(st)
	if first, sent := s.sent[st.Ino]; sent {
		if !first.kept || !same {
			if err := s.link(s.path(n.name), first.path); err != nil {
				return err
			}
		}
		s.record(n, st, seen)
		return nil
	}
	if err := s.content(n, st, seen); err != nil {
		return err
	}
	s.sent[st.Ino] = arrival{s.path(n.name), regular && same}
	return nil
}

// sparse tells whether a file may have holes.
func sparse(st *unix.Stat_t) bool { return st.Blocks*512 < st.Size }
