package delta

import "fmt"

// Extents finds data between holes: the first run of it from at on, empty and
// at or beyond the end of the file if there is none. What is not data reads as
// zeros. Nil stands for a file without holes.
type Extents func(at int64) (start, end int64, err error)

type extent struct{ start, end int64 }

// extents looks ahead through a file from its beginning.
type extents struct {
	next  Extents
	size  int64
	at    int64    // how far it has looked
	ahead []extent // not yet left behind
}

func newExtents(next Extents, size int64) *extents {
	if next == nil {
		next = func(at int64) (int64, int64, error) { return at, size, nil }
	}
	return &extents{next: next, size: size}
}

// upTo looks until it knows all that begins before to.
func (e *extents) upTo(to int64) error {
	for to = min(to, e.size); e.at < to; {
		start, end, err := e.next(e.at)
		if err != nil {
			return fmt.Errorf("find data from %d on: %w", e.at, err)
		}
		start, end = max(start, e.at), min(end, e.size)
		if start >= end {
			e.at = e.size
			return nil
		}
		e.ahead = append(e.ahead, extent{start, end})
		e.at = end
	}
	return nil
}

// first is where the first data is that is not left behind, or size.
func (e *extents) first() (int64, error) {
	if len(e.ahead) == 0 {
		if err := e.upTo(e.at + 1); err != nil {
			return 0, err
		}
	}
	if len(e.ahead) == 0 {
		return e.size, nil
	}
	return e.ahead[0].start, nil
}

// leave forgets what is before at.
func (e *extents) leave(at int64) {
	e.at = max(e.at, at)
	for len(e.ahead) > 0 && e.ahead[0].end <= at {
		e.ahead = e.ahead[1:]
	}
	if len(e.ahead) > 0 {
		e.ahead[0].start = max(e.ahead[0].start, at)
	}
}

// known is what is known of the data from at to end.
func (e *extents) known(at, end int64) []extent {
	var in []extent
	for _, x := range e.ahead {
		if x.start >= end {
			break
		}
		if x.end > at {
			in = append(in, extent{max(x.start, at), min(x.end, end)})
		}
	}
	return in
}
