package delta

import (
	"context"
	"errors"
	"io"

	"github.com/zeebo/xxh3"
	"golang.org/x/sync/errgroup"
)

const (
	maxCopy = 1 << 20   // bytes of a run that is a copy
	maxData = 256 << 10 // and of new data
)

// Run is a part of the new file.
type Run struct {
	Offset, Length int64
	From           int64  // offset in the signed file, or -1: new data
	Sum            uint64 // of a copy: XXH3, 64 bits, with the seed
	Data           []byte // the bytes, copied or new, valid during the call
}

// Options are what Match needs to know beside the file.
type Options struct {
	Seed uint64  // of Run.Sum
	Data Extents // where the new file has data; no run goes beyond
}

// Match reads the size bytes of r, as far as there is data, and calls emit with
// runs that cover just that, ascending: copies up to 1 MiB, new data up to
// 256 KiB. If the file ends before size, emit gets what there was, and the error
// is io.ErrUnexpectedEOF. Other errors: those of r, Data, emit and ctx.
func (s *Signature) Match(ctx context.Context, r io.ReaderAt, size int64, o Options, emit func(Run) error) error {
	n := workers()
	m := &matching{
		sig: s, r: r, size: size, seed: o.Seed, emit: emit,
		jobs: make(chan *segment), order: make(chan *segment, n),
	}
	g, each := errgroup.WithContext(ctx)
	g.Go(func() error { return m.plan(each, newExtents(o.Data, size)) })
	for range min(int64(n), (size+segmentSize-1)/segmentSize) {
		g.Go(func() error { return m.work(each) })
	}
	g.Go(func() error { return m.collect(each) })
	if err := g.Wait(); err != nil {
		return err
	}
	return context.Cause(ctx)
}

// matching is one Match: plan makes segments, work matches them, collect emits
// their runs in order.
type matching struct {
	sig         *Signature
	r           io.ReaderAt
	size        int64
	seed        uint64
	emit        func(Run) error
	jobs, order chan *segment
	covered     int64 // by the runs emitted
}

// segment is a part of the new file. What is matched begins in its first own
// bytes and may end in the bytes after them.
type segment struct {
	at     int64
	own    int
	buffer *[]byte
	bytes  []byte
	data   []extent
	runs   []Run
	err    error
	done   chan struct{}
}

func (m *matching) plan(ctx context.Context, data *extents) error {
	defer close(m.order)
	defer close(m.jobs)
	for {
		s, err := m.next(data)
		if s == nil {
			return err
		}
		for _, to := range []chan *segment{m.order, m.jobs} {
			select {
			case to <- s:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
	}
}

// next is the next segment with data, nil at the end.
func (m *matching) next(data *extents) (*segment, error) {
	first, err := data.first()
	if err != nil || first >= m.size {
		return nil, err
	}
	at := first / segmentSize * segmentSize
	own := min(segmentSize, m.size-at)
	beyond := min(at+own+m.sig.block, m.size)
	if err := data.upTo(beyond); err != nil {
		return nil, err
	}
	s := &segment{at: at, own: int(own), data: data.known(at, beyond), done: make(chan struct{})}
	s.buffer = getBuffer(int(beyond - at))
	s.bytes = *s.buffer
	data.leave(at + own)
	return s, nil
}

func (m *matching) work(ctx context.Context) error {
	w := newMatcher(m.sig, m.seed, m.size)
	for s := range m.jobs {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		if s.read(m.r); s.own > 0 {
			w.match(s)
		}
		close(s.done)
	}
	return nil
}

// read fills the segment, as far as the file still goes.
func (s *segment) read(r io.ReaderAt) {
	n, err := r.ReadAt(s.bytes, s.at)
	if n == len(s.bytes) {
		return
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	s.bytes = s.bytes[:n]
	if n < s.own || !errors.Is(err, io.ErrUnexpectedEOF) {
		s.own, s.err = min(s.own, n), err
	}
}

func (m *matching) collect(ctx context.Context) error {
	for s := range m.order {
		select {
		case <-s.done:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if err := m.pass(s); err != nil {
			return err
		}
		pool.Put(s.buffer)
	}
	return nil
}

// pass emits the runs of a segment, without what the one before it covers.
func (m *matching) pass(s *segment) error {
	for _, r := range s.runs {
		if over := m.covered - r.Offset; over >= r.Length {
			continue
		} else if over > 0 {
			r = r.behind(over)
			if r.From >= 0 {
				r.Sum = xxh3.HashSeed(r.Data, m.seed)
			}
		}
		if err := m.emit(r); err != nil {
			return err
		}
		m.covered = r.Offset + r.Length
	}
	return s.err
}

// behind is r without its first n bytes, and without the sum.
func (r Run) behind(n int64) Run {
	r.Offset, r.Length = r.Offset+n, r.Length-n
	r.Data = r.Data[n:]
	if r.From >= 0 {
		r.From += n
	}
	return r
}
