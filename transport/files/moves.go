package files

import (
	"errors"

	"golang.org/x/sys/unix"

	"github.com/vzkit/vzkit/transport"
)

// apart is an entry that was put aside at the receiver, because it may come
// back under another name.
type apart struct {
	number uint64
	node   *node
}

// drop handles an entry that has left its place. Directories and summed files
// are put aside, all else is deleted.
func (s *scanner) drop(d *directory, n *node) error {
	s.orphan(n)
	if !n.missing && (n.dir != nil || n.sums != nil) {
		return s.putAside(d, n)
	}
	d.take(n)
	s.src.inodes.drop(n)
	if n.missing {
		return nil
	}
	return s.delete(s.pathOf(d, n.name))
}

// orphan notes that an inode loses a name.
func (s *scanner) orphan(n *node) {
	if n.linked && !s.deep {
		s.orphans = append(s.orphans, n.ino)
	}
}

// putAside takes an entry out of the tree for now.
func (s *scanner) putAside(d *directory, n *node) error {
	s.number++
	d.take(n)
	s.src.inodes.drop(n)
	s.aside[n.ino] = &apart{s.number, n}
	return s.numbered(transport.TypeFileAside, s.number, s.pathOf(d, n.name))
}

// bringBack puts what is aside in its new place.
func (s *scanner) bringBack(a *apart, d *directory, name string) (*node, error) {
	delete(s.aside, a.node.ino)
	a.node.name = name
	a.node.digest = 0 // its ctime has changed at least
	d.put(a.node)
	s.src.inodes.put(a.node)
	return a.node, s.numbered(transport.TypeFileBack, a.number, s.pathOf(d, name))
}

// pathOf is the path of a name in a directory that is in the tree.
func (s *scanner) pathOf(d *directory, name string) string {
	names, _ := d.names(s.src.root)
	return joinPath(names, name)
}

// identify finds out which entry of the receiver's the inode st at name in the
// directory d is: n, which has the name there, or one that has been moved, or a
// new one.
func (s *scanner) identify(d *directory, n *node, name string, st *unix.Stat_t) (*node, error) {
	if n != nil && n.same(st) {
		return n, nil
	}
	if n != nil && !n.missing && (n.dir != nil || n.sums != nil || st.Mode&unix.S_IFMT == unix.S_IFDIR) {
		if err := s.drop(d, n); err != nil {
			return nil, err
		}
		n = nil
	}
	if n != nil && st.Mode&unix.S_IFMT != unix.S_IFDIR {
		n.dir = nil // it was to be sent as a directory, and had gone
	}
	from, err := s.moved(st)
	if err != nil {
		return nil, err
	}
	if from != nil {
		if n != nil {
			if err := s.drop(d, n); err != nil {
				return nil, err
			}
		}
		return s.bringBack(from, d, name)
	}
	if n == nil {
		n = &node{name: name, missing: true}
		d.put(n)
	}
	s.orphan(n)
	s.src.inodes.drop(n)
	n.ino, n.linked = 0, false // whatever comes of it, the receiver's will be another
	return n, s.linkTo(n, st)
}

// moved finds an inode that is aside, or that has left the place where the
// receiver has it.
func (s *scanner) moved(st *unix.Stat_t) (*apart, error) {
	if a := s.aside[st.Ino]; a != nil {
		if a.node.kind == uint8(st.Mode>>kindShift) {
			return a, nil
		}
		return nil, nil
	}
	n := s.src.inodes.find(st.Ino)
	if n == nil || n.dir == nil && n.sums == nil || n.missing || n.kind != uint8(st.Mode>>kindShift) || !s.attached(n) {
		return nil, nil
	}
	there, err := s.still(n)
	if err != nil || there {
		return nil, err
	}
	if err := s.putAside(n.parent, n); err != nil {
		return nil, err
	}
	return s.aside[st.Ino], nil
}

// still tells whether an entry, which is in the tree, is where the receiver has
// it.
func (s *scanner) still(n *node) (bool, error) {
	names, _ := n.parent.names(s.src.root)
	dir, err := openDir(s.fds[0], names)
	if gone(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer unix.Close(dir)
	var st unix.Stat_t
	err = unix.Fstatat(dir, n.name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	return err == nil && st.Ino == n.ino, err
}

// linkTo links a name that is new to where the receiver has its inode, if that
// still has the other name too.
func (s *scanner) linkTo(n *node, st *unix.Stat_t) error {
	if _, sent := s.sent[st.Ino]; sent || st.Nlink < 2 {
		return nil
	}
	s.hasOthers(st.Ino)
	for _, other := range s.others(st.Ino, !s.deep) {
		if other == n || other.missing || other.kind != uint8(st.Mode>>kindShift) {
			continue
		}
		there, err := s.still(other)
		if err != nil {
			return err
		}
		if !there {
			continue
		}
		if err := s.link(s.path(n.name), s.pathOf(other.parent, other.name)); err != nil {
			return err
		}
		n.ino, n.kind, n.missing, n.digest = other.ino, other.kind, false, 0
		return nil
	}
	return nil
}

// hasOthers notes that an inode that had one name has more.
func (s *scanner) hasOthers(ino uint64) {
	n := s.src.inodes.find(ino)
	if n == nil || n.dir != nil || n.linked {
		return
	}
	n.linked, n.sums = true, nil
	if s.linked != nil {
		s.linked[ino] = append(s.linked[ino], n)
	}
}

// others are the names, in the tree, of an inode that is no directory: one at
// least, or all of them, which needs a list of the inodes that have several.
func (s *scanner) others(ino uint64, each bool) (all []*node) {
	first := s.src.inodes.find(ino)
	if first != nil && first.dir == nil && s.attached(first) {
		all = append(all, first)
	}
	if !each {
		return all
	}
	if s.linked == nil {
		s.linked = map[uint64][]*node{}
		s.src.root.each(func(n *node) {
			if n.linked {
				s.linked[n.ino] = append(s.linked[n.ino], n)
			}
		})
	}
	for _, n := range s.linked[ino] {
		if n != first && n.ino == ino && s.attached(n) {
			all = append(all, n)
		}
	}
	return all
}

// attached tells whether an entry is in the tree.
func (s *scanner) attached(n *node) bool {
	if n.parent == nil {
		return false
	}
	_, ok := n.parent.names(s.src.root)
	return ok
}
