package track

import (
	"context"
	"math"
	"sync"
)

const (
	copiers  = 2
	jobPages = 2048
	jobSpans = 512
)

// pass is one look at the container: one goroutine looks at page tables, others
// copy what it finds.
type pass struct {
	t      *tracker
	ctx    context.Context
	cancel context.CancelCauseFunc

	pids map[int]bool     // of the container
	open map[fileKey]bool // files of the kernel's tmpfs that are open; nil: not looked yet

	todo, free chan *job
	now        *job // being filled
	own        bool // what is taken now hides a file's pages

	mu    sync.Mutex // held for the sink
	sink  Sink
	round Round
}

// job is pages to copy, of one space or object.
type job struct {
	s     *space
	o     *object
	own   bool
	spans []span
	pages uint64
}

// pass makes a pass of what look does. An error ends tracking: the kernel has
// forgotten what was written, and it has not been passed on.
func (t *tracker) pass(ctx context.Context, sink Sink, look func(*pass) error) (Round, error) {
	if t.err != nil {
		return Round{}, t.err
	}
	p := &pass{t: t, sink: sink, todo: make(chan *job, copiers), free: make(chan *job, 2*copiers+1)}
	p.ctx, p.cancel = context.WithCancelCause(ctx)
	defer p.cancel(nil)
	for range cap(p.free) {
		p.free <- &job{}
	}
	var running sync.WaitGroup
	for _, c := range t.copiers {
		running.Go(func() { c.run(p) })
	}
	err := look(p)
	if err == nil {
		err = p.flush()
	}
	close(p.todo)
	running.Wait()
	if cause := context.Cause(p.ctx); cause != nil {
		err = cause
	}
	t.err = err
	return p.round, err
}

// take passes on the pages of a region.
func (p *pass) take(s *space, start, end uint64) error {
	s.have.add(start, end)
	return p.copy(s, nil, start, end)
}

// copy has pages copied.
func (p *pass) copy(s *space, o *object, start, end uint64) error {
	own := s != nil && p.own
	for start < end {
		if p.now != nil && (p.now.s != s || p.now.o != o || p.now.own != own || p.now.pages >= jobPages || len(p.now.spans) >= jobSpans) {
			if err := p.flush(); err != nil {
				return err
			}
		}
		if p.now == nil {
			p.now = <-p.free
			*p.now = job{s: s, o: o, own: own, spans: p.now.spans[:0]}
		}
		n := min((end-start)/PageSize, jobPages-p.now.pages)
		p.now.spans = append(p.now.spans, span{start, start + n*PageSize})
		p.now.pages += n
		start += n * PageSize
	}
	return nil
}

// flush hands the job over that is being filled.
func (p *pass) flush() error {
	if p.now != nil {
		p.todo <- p.now
		p.now = nil
	}
	return context.Cause(p.ctx)
}

// send passes a run on.
func (p *pass) send(r Run) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := context.Cause(p.ctx); err != nil {
		return err
	}
	if r.Data == nil {
		p.round.Zero += uint64(r.Count)
	} else {
		p.round.Pages += uint64(r.Count)
	}
	return p.sink.Pages(r)
}

// zero passes on that a span has no pages.
func (p *pass) zero(space uint64, s span) error {
	for s.start < s.end {
		n := min(s.pages(), math.MaxUint32)
		if err := p.send(Run{Space: space, Address: s.start, Count: uint32(n)}); err != nil {
			return err
		}
		s.start += n * PageSize
	}
	return nil
}

// absent notes that there is nothing in [start, end), and passes that on if
// something had been passed on.
func (p *pass) absent(s *space, start, end uint64) error {
	if start >= end {
		return nil
	}
	was, pages := s.have.remove(start, end)
	return p.removed(s, was, pages)
}

func (p *pass) removed(s *space, was span, pages uint64) error {
	if pages == 0 {
		return nil
	}
	if s.sums != nil {
		s.sums.remove(was.start, was.end)
	}
	return p.zero(s.id, was)
}

// forget notes that there is nothing outside of the private mappings.
func (p *pass) forget(s *space, vmas []vma) error {
	numbers := s.have.numbers()
	at := uint64(0)
	for i := range vmas {
		if !s.covers(&vmas[i]) {
			continue
		}
		var err error
		if numbers, err = p.forgetGap(s, numbers, span{at, vmas[i].start}); err != nil {
			return err
		}
		at = vmas[i].end
	}
	_, err := p.forgetGap(s, numbers, span{at, math.MaxUint64})
	return err
}

// forgetGap notes that there is nothing in a gap between mappings. numbers are
// those of the chunks from there on; it returns what is left of them. Chunks
// that lie side by side go together: gaps may be as large as the address space.
func (p *pass) forgetGap(s *space, numbers []uint64, gap span) ([]uint64, error) {
	for len(numbers) > 0 && (numbers[0]+1)*chunkBytes <= gap.start {
		numbers = numbers[1:]
	}
	for i := 0; i < len(numbers) && numbers[i]*chunkBytes < gap.end; {
		r := removal{span: gap, was: span{math.MaxUint64, 0}}
		for first := i; i < len(numbers) && numbers[i] == numbers[first]+uint64(i-first) && numbers[i]*chunkBytes < gap.end; i++ {
			s.have.removeChunk(&r, numbers[i])
		}
		if err := p.removed(s, r.was, r.pages); err != nil {
			return nil, err
		}
	}
	return numbers, nil
}
