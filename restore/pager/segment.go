package pager

import (
	"cmp"
	"slices"
)

// segment is a piece of a process's memory: where it is, [start, end), and
// where it was when the store's addresses were made.
type segment struct{ start, end, origin uint64 }

func (s segment) originEnd() uint64 { return s.origin + s.end - s.start }

// layout is the segments of a process. No two overlap, neither where they are
// nor where they were.
type layout struct {
	byStart  []segment
	byOrigin []segment // the same, or nil if they have changed
}

func (l *layout) add(s segment) {
	n, _ := slices.BinarySearchFunc(l.byStart, s.start, func(a segment, at uint64) int { return cmp.Compare(a.start, at) })
	l.byStart = slices.Insert(l.byStart, n, s)
	l.byOrigin = nil
}

// origin translates an address to where it was.
func (l *layout) origin(address uint64) (segment, bool) {
	n, _ := slices.BinarySearchFunc(l.byStart, address+1, func(a segment, at uint64) int { return cmp.Compare(a.start, at) })
	if n == 0 || l.byStart[n-1].end <= address {
		return segment{}, false
	}
	s := l.byStart[n-1]
	return segment{address, s.end, s.origin + address - s.start}, true
}

// current translates back: the rest of the segment from where origin is now.
func (l *layout) current(origin uint64) (segment, bool) {
	if l.byOrigin == nil {
		l.byOrigin = slices.SortedFunc(slices.Values(l.byStart), func(a, b segment) int { return cmp.Compare(a.origin, b.origin) })
	}
	n, _ := slices.BinarySearchFunc(l.byOrigin, origin+1, func(a segment, at uint64) int { return cmp.Compare(a.origin, at) })
	if n == 0 || l.byOrigin[n-1].originEnd() <= origin {
		return segment{}, false
	}
	s := l.byOrigin[n-1]
	return segment{s.start + origin - s.origin, s.end, origin}, true
}

// cut takes [start, end) out and returns what was there.
func (l *layout) cut(start, end uint64) (out []segment) {
	var left []segment
	for _, s := range l.byStart {
		from, to := max(s.start, start), min(s.end, end)
		if from >= to {
			left = append(left, s)
			continue
		}
		out = append(out, segment{from, to, s.origin + from - s.start})
		if s.start < from {
			left = append(left, segment{s.start, from, s.origin})
		}
		if to < s.end {
			left = append(left, segment{to, s.end, s.origin + to - s.start})
		}
	}
	l.byStart, l.byOrigin = left, nil
	return out
}

// move puts what is at [from, from+size) to another place.
func (l *layout) move(from, to, size uint64) {
	for _, s := range l.cut(from, from+size) {
		l.add(segment{s.start - from + to, s.end - from + to, s.origin})
	}
}
