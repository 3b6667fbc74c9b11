package memory

import (
	"fmt"
	"iter"
	"maps"
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// A window is the part of a space whose pages share a table: 16 MiB, so that
// one page costs no more than another page of tables.
const (
	windowPages = 4096
	windowSize  = windowPages * PageSize
)

// space is the memory of one process or object.
type space struct {
	file *os.File
	fd   int

	mu      sync.Mutex
	windows map[uint64]*window // by address / windowSize
}

// window is what is known of a window's pages.
type window struct {
	rounds [windowPages]uint8 // that brought them, or 0: not there
	view   []byte             // once it was asked for
}

func newSpace(f *os.File) *space {
	return &space{file: f, fd: int(f.Fd()), windows: map[uint64]*window{}}
}

func (sp *space) close() error {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	for _, w := range sp.windows {
		if w.view != nil {
			_ = unix.Munmap(w.view)
		}
	}
	return sp.file.Close()
}

// part is the piece of a range that is in one window: pages [from, to).
type part struct {
	index    uint64
	from, to int
}

// parts cuts a range at the windows' borders.
func parts(start, end uint64) iter.Seq[part] {
	return func(yield func(part) bool) {
		for start < end {
			index := start / windowSize
			stop := min(end, (index+1)*windowSize)
			base := index * windowSize
			if !yield(part{index, int((start - base) / PageSize), int((stop - base + PageSize - 1) / PageSize)}) {
				return
			}
			start = stop
		}
	}
}

// stamp notes the round of pages, 0 for pages that go, and returns how many
// came or went.
func (sp *space) stamp(start, end uint64, round uint8) (changed uint64) {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	for p := range parts(start, end) {
		w := sp.windows[p.index]
		if w == nil {
			if round == 0 {
				continue
			}
			w = &window{}
			sp.windows[p.index] = w
		}
		rounds := w.rounds[p.from:p.to]
		for n, old := range rounds {
			if (old == 0) != (round == 0) {
				changed++
			}
			rounds[n] = round
		}
	}
	return changed
}

// present counts the pages that are there.
func (sp *space) present(start, end uint64) (pages uint64) {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	for p := range parts(start, end) {
		if w := sp.windows[p.index]; w != nil {
			for _, round := range w.rounds[p.from:p.to] {
				if round != 0 {
					pages++
				}
			}
		}
	}
	return pages
}

// Run is a run of pages that are there.
type Run struct {
	Address uint64
	Count   uint32
}

// End is the address after it.
func (r Run) End() uint64 { return r.Address + uint64(r.Count)*PageSize }

// runs lists what is there of a range, ascending, from the given round on. No
// run crosses a window's border.
func (sp *space) runs(start, end uint64, since uint8) iter.Seq[Run] {
	return func(yield func(Run) bool) {
		for _, index := range sp.indexes(start, end) {
			base := index * windowSize
			from, to := max(start, base), min(end, base+windowSize)
			for _, r := range sp.windowRuns(index, int((from-base)/PageSize), int((to-base)/PageSize), since) {
				if !yield(r) {
					return
				}
			}
		}
	}
}

// indexes lists the windows there are in a range, ascending.
func (sp *space) indexes(start, end uint64) []uint64 {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	if start >= end {
		return nil
	}
	first, last := start/windowSize, (end-1)/windowSize
	if last-first < 64 { // the windows are many, the range is not
		var found []uint64
		for index := first; index <= last; index++ {
			if sp.windows[index] != nil {
				found = append(found, index)
			}
		}
		return found
	}
	all := slices.Sorted(maps.Keys(sp.windows))
	from, _ := slices.BinarySearch(all, first)
	to, _ := slices.BinarySearch(all, last+1)
	return all[from:to]
}

func (sp *space) windowRuns(index uint64, from, to int, since uint8) (found []Run) {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	rounds := &sp.windows[index].rounds
	for n := from; n < to; n++ {
		if rounds[n] < since {
			continue
		}
		begin := n
		for n < to && rounds[n] >= since {
			n++
		}
		found = append(found, Run{index*windowSize + uint64(begin)*PageSize, uint32(n - begin)})
	}
	return found
}

// Runs lists what is there of a space between two addresses, ascending, brought
// by the given round (from 1) or a later one. No run is longer than 16 MiB.
func (s *Store) Runs(number, start, end uint64, since uint8) iter.Seq[Run] {
	sp := s.find(number)
	if sp == nil {
		return func(func(Run) bool) {}
	}
	return sp.runs(start, end, max(since, 1))
}

// View returns the memory of a run that Runs listed, without a copy. It is to
// be read only, and not after its pages were released.
func (s *Store) View(number uint64, r Run) ([]byte, error) {
	sp := s.find(number)
	if sp == nil {
		return nil, fmt.Errorf("view of memory space %d: %w", number, unix.ENOENT)
	}
	sp.mu.Lock()
	defer sp.mu.Unlock()
	index := r.Address / windowSize
	w := sp.windows[index]
	if w == nil {
		return nil, fmt.Errorf("view of memory at %#x: %w", r.Address, unix.ENOENT)
	}
	if w.view == nil {
		view, err := unix.Mmap(sp.fd, int64(index*windowSize), windowSize, unix.PROT_READ, unix.MAP_SHARED)
		if err != nil {
			return nil, fmt.Errorf("map memory at %#x: %w", r.Address, err)
		}
		w.view = view
	}
	offset := r.Address % windowSize
	return w.view[offset : offset+uint64(r.Count)*PageSize : offset+uint64(r.Count)*PageSize], nil
}
