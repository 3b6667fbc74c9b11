package watch

import (
	"cmp"
	"maps"
	"slices"
)

// What the entries of a seen weigh, in bytes of memory, roughly.
const (
	nameWeight  = 40 // and the bytes of the name
	dirWeight   = 250
	inodeWeight = 20
	maxWeight   = 32 << 20 // about half a million names
)

// seen is what has come since the last Take. It stays below limit: first the
// names of the directories that have most of them go, then everything.
type seen struct {
	Changes
	weight, limit int
	lost          bool
}

func newSeen(limit int) *seen {
	s := &seen{limit: limit}
	s.clear()
	return s
}

func (s *seen) clear() {
	s.Changes = Changes{
		Names: map[uint64]map[string]struct{}{},
		Dirs:  map[uint64]struct{}{},
		Files: map[uint64]struct{}{},
	}
	s.weight = 0
}

// lose gives up on everything until the next Take.
func (s *seen) lose() {
	s.clear()
	s.lost = true
}

func (s *seen) add(e event) {
	if e.overflow {
		s.lose()
	}
	if s.lost {
		return
	}
	if e.hasFile {
		s.weight += put(s.Files, e.file)
	}
	if e.hasDir {
		s.addEntry(e.dir, e.name)
	}
	if s.weight > s.limit {
		s.shrink()
	}
}

// put adds an inode to a set and says by how much that made it heavier.
func put(set map[uint64]struct{}, inode uint64) int {
	before := len(set)
	set[inode] = struct{}{}
	return (len(set) - before) * inodeWeight
}

func (s *seen) addEntry(dir uint64, name []byte) {
	if _, all := s.Dirs[dir]; all {
		return
	}
	names, ok := s.Names[dir]
	if !ok {
		names = map[string]struct{}{}
		s.Names[dir] = names
		s.weight += dirWeight
	}
	if name == nil {
		return
	}
	if _, ok := names[string(name)]; !ok {
		names[string(name)] = struct{}{}
		s.weight += nameWeight + len(name)
	}
}

// shrink turns the directories with the most names into Dirs until half of the
// limit is free. If that is not enough, everything is lost.
func (s *seen) shrink() {
	dirs := slices.SortedFunc(maps.Keys(s.Names), func(a, b uint64) int {
		return cmp.Compare(len(s.Names[b]), len(s.Names[a]))
	})
	for _, dir := range dirs {
		if s.weight <= s.limit/2 {
			return
		}
		s.whole(dir)
	}
	if s.weight > s.limit/2 {
		s.lose()
	}
}

// whole makes dir a directory of which anything may have changed.
func (s *seen) whole(dir uint64) {
	if names, ok := s.Names[dir]; ok {
		s.weight -= dirWeight
		for name := range names {
			s.weight -= nameWeight + len(name)
		}
		delete(s.Names, dir)
	}
	s.weight += put(s.Dirs, dir)
}

// split leaves in s what is of directories that are known, and the directories
// of earlier that are known by now. It returns the unknown ones.
func (s *seen) split(known func(uint64) bool, earlier map[uint64]struct{}) map[uint64]struct{} {
	unknown := map[uint64]struct{}{}
	for dir := range s.Names {
		if !known(dir) {
			unknown[dir] = struct{}{}
			delete(s.Names, dir)
		}
	}
	for dir := range s.Dirs {
		if !known(dir) {
			unknown[dir] = struct{}{}
			delete(s.Dirs, dir)
		}
	}
	for dir := range earlier {
		if known(dir) {
			s.whole(dir)
		}
	}
	return unknown
}
