package watch

import (
	"slices"
	"testing"
)

func entry(dir uint64, name string) event { return event{dir: dir, hasDir: true, name: []byte(name)} }

func TestSeenOnce(t *testing.T) {
	s := newSeen(maxWeight)
	for range 3 {
		s.add(entry(1, "a"))
		s.add(event{dir: 2, hasDir: true})
		s.add(event{file: 3, hasFile: true})
	}
	if want := 2*dirWeight + nameWeight + 1 + inodeWeight; s.weight != want {
		t.Errorf("weight %d, want %d", s.weight, want)
	}
	if names, ok := s.Names[2]; !ok || len(names) != 0 || len(s.Files) != 1 {
		t.Errorf("seen %+v", s.Changes)
	}
}

// TestShrink has one directory with many names and one with few.
func TestShrink(t *testing.T) {
	s := newSeen(100 * 1000)
	s.add(entry(2, "few"))
	for i := range 5000 {
		s.add(entry(1, itoa(i)))
	}
	if _, all := s.Dirs[1]; !all || s.Names[1] != nil || s.Names[2] == nil || s.lost {
		t.Errorf("lost %v, %d directories, %d with names", s.lost, len(s.Dirs), len(s.Names))
	}
	if want := dirWeight + nameWeight + 3 + inodeWeight; s.weight != want {
		t.Errorf("weight %d, want %d", s.weight, want)
	}
}

func TestTooMuch(t *testing.T) {
	s := newSeen(100 * 1000)
	for i := range uint64(10000) {
		s.add(event{file: i, hasFile: true})
		s.add(entry(i, "x"))
		if s.weight > s.limit {
			t.Fatalf("weight %d", s.weight)
		}
	}
	if !s.lost || len(s.Names)+len(s.Dirs)+len(s.Files) != 0 {
		t.Errorf("lost %v, %d left", s.lost, len(s.Names)+len(s.Dirs)+len(s.Files))
	}
}

func TestSplit(t *testing.T) {
	s := newSeen(maxWeight)
	s.add(entry(1, "a"))
	s.add(entry(2, "b"))
	s.add(entry(3, "c"))
	s.whole(4)
	s.whole(5)
	known := func(dir uint64) bool { return slices.Contains([]uint64{1, 3, 4, 6}, dir) }
	unknown := s.split(known, map[uint64]struct{}{3: {}, 6: {}, 7: {}})
	check := func(what string, set map[uint64]struct{}, want ...uint64) {
		t.Helper()
		if len(set) != len(want) {
			t.Errorf("%s: %v, want %v", what, set, want)
		}
		for _, dir := range want {
			if _, ok := set[dir]; !ok {
				t.Errorf("%s: no %d", what, dir)
			}
		}
	}
	check("unknown", unknown, 2, 5)
	check("dirs", s.Dirs, 3, 4, 6)
	if len(s.Names) != 1 || !has(s.Changes, 1, "a") {
		t.Errorf("names: %v", s.Names)
	}
}
