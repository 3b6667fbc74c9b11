package files

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/vzkit/vzkit/transport/files/watch"
)

// visit is a directory in which something may have changed.
type visit struct {
	dir   *directory
	names map[string]bool // that may have
	list  bool            // or any
}

// tracked looks at what was seen to change, and at the mapped files. all: that
// does not fit together, and everything is to be looked at.
func (s *scanner) tracked(c watch.Changes) (all bool, err error) {
	todo := s.visits(c)
	for len(todo) > 0 {
		var later []*visit // directories that are aside for now
		for _, v := range todo {
			names, ok := v.dir.names(s.src.root)
			if !ok {
				later = append(later, v)
				continue
			}
			if all, err = s.visit(v, names); err != nil || all {
				return all, err
			}
		}
		if len(later) == len(todo) {
			s.goneWith(later)
			break
		}
		todo = later
	}
	s.linked = nil // some directories were aside when it was made
	return s.rest(c)
}

// relink links the names, that nobody has touched, of inodes that have become
// others at the receiver.
func (s *scanner) relink() error {
	s.linked = nil
	for ino, to := range s.sent {
		if to.kept {
			continue
		}
		for _, n := range s.others(ino, true) {
			path := s.pathOf(n.parent, n.name)
			there, err := s.still(n)
			if err == nil && there && !n.missing && path != to.path {
				err = s.link(path, to.path)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// goneWith notes the inodes that may have changed and lost a name with a
// directory that is not in the tree any more.
func (s *scanner) goneWith(dirs []*visit) {
	for _, v := range dirs {
		for _, n := range v.dir.entries {
			if v.list || v.names[n.name] {
				s.orphan(n)
			}
		}
	}
}

// rest looks at another name of inodes that have changed and lost the one by
// which that was seen.
func (s *scanner) rest(c watch.Changes) (all bool, err error) {
	for len(s.orphans) > 0 {
		ino := s.orphans[0]
		s.orphans = s.orphans[1:]
		_, changed := c.Files[ino]
		_, sent := s.sent[ino]
		others := s.others(ino, true)
		if !changed || sent || len(others) == 0 {
			continue
		}
		n := others[0]
		names, _ := n.parent.names(s.src.root)
		if all, err = s.visit(&visit{dir: n.parent, names: map[string]bool{n.name: true}}, names); err != nil || all {
			return all, err
		}
	}
	return false, nil
}

// visits are what is to be looked at, by path.
func (s *scanner) visits(c watch.Changes) []*visit {
	found := visits{}
	for ino, names := range c.Names {
		if n := s.src.inodes.find(ino); n != nil && n.dir != nil {
			v := found.of(n.dir)
			for name := range names {
				v.names[name] = true
			}
		}
	}
	again := s.src.again
	s.src.again = nil
	for _, ino := range slices.AppendSeq(again, maps.Keys(c.Dirs)) {
		if n := s.src.inodes.find(ino); n != nil && n.dir != nil {
			found.of(n.dir).list = true
		}
	}
	for ino := range c.Files {
		found.file(s.src.inodes.find(ino))
	}
	if s.Frozen {
		for key := range s.Writers {
			found.file(s.src.inodes.find(key[1]))
		}
	}
	return found.byPath(s.src.root)
}

// visits are directories in which something may have changed.
type visits map[*directory]*visit

func (all visits) of(d *directory) *visit {
	v := all[d]
	if v == nil {
		v = &visit{dir: d, names: map[string]bool{}}
		all[d] = v
	}
	return v
}

// file adds an entry that is no directory.
func (all visits) file(n *node) {
	if n != nil && n.dir == nil && n.parent != nil {
		all.of(n.parent).names[n.name] = true
	}
}

func (all visits) byPath(root *directory) []*visit {
	paths := map[*visit]string{}
	for d, v := range all {
		names, _ := d.names(root)
		paths[v] = strings.Join(names, "/")
	}
	return slices.SortedFunc(maps.Values(all), func(a, b *visit) int { return strings.Compare(paths[a], paths[b]) })
}

// visit looks at a directory: at the names, or at all that is in it, but not
// beneath. One that is not at its path is looked at in the next pass once more;
// all: there is none.
func (s *scanner) visit(v *visit, names []string) (all bool, err error) {
	back := s.trail
	defer func() { s.trail = back }()
	if s.trail, err = back.at(names); err == nil {
		defer s.trail.closeBranch()
		err = s.look(v)
		if berr := s.endBatch(); err == nil {
			err = berr
		}
	}
	if gone(err) || errors.Is(err, errReplaced) {
		s.src.again = append(s.src.again, v.dir.node.ino)
		return s.Frozen, nil
	}
	return false, pathErrorIf("read directory", strings.Join(names, "/"), err)
}

func (s *scanner) look(v *visit) error {
	seen := time.Now()
	st, err := s.stat(".")
	if err != nil {
		return err
	}
	if st.Ino != v.dir.node.ino {
		return errReplaced
	}
	if err := s.metadata(v.dir, &st, seen); err != nil {
		return err
	}
	names := slices.Sorted(maps.Keys(v.names))
	if v.list {
		if names, err = s.list(); err != nil {
			return err
		}
		if err := s.forget(v.dir, names); err != nil {
			return err
		}
	}
	for _, name := range names {
		n, err := s.child(v.dir, name)
		if err != nil {
			return err
		}
		if n == nil || n.dir == nil || !n.missing {
			continue
		}
		if err := s.endBatch(); err != nil {
			return err
		}
		if err := s.descend(v.dir, n); err != nil {
			return err
		}
	}
	return nil
}
