package track

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"sync"

	"golang.org/x/sys/unix"
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

// covers tells whether a mapping's own pages are tracked.
func (s *space) covers(v *vma) bool {
	if !v.private() {
		return false
	}
	for _, b := range s.busy {
		if v.start < b.end && b.start < v.end {
			return false
		}
	}
	return true
}

// walk looks at a running process.
func (p *pass) walk(s *space) error {
	if s.soft {
		return p.walkSoft(s)
	}
	vmas := p.t.mappings(s)
	if len(vmas) == 0 {
		return nil // it has just ended; the next refresh drops it
	}
	s.busy = s.busy[:0]
	if err := p.forget(s, vmas); err != nil {
		return err
	}
	unsure := s.unsure
	s.unsure = false
	var ours []span
	for i := range vmas {
		watched, err := p.look(s, &vmas[i], unsure)
		if err != nil {
			return err
		}
		if watched {
			ours = join(ours, vmas[i].start, vmas[i].end)
		}
	}
	s.ours = ours
	return nil
}

// look looks at a mapping of a running process, and tells whether the kernel
// will note writes to it.
func (p *pass) look(s *space, v *vma, unsure bool) (watched bool, err error) {
	p.own = v.class == fileCopy
	switch {
	case v.class == shared:
		return p.share(s, v), nil
	case v.private() && s.uffd >= 0:
		return p.written(s, v, unsure)
	case v.private():
		return false, p.all(s, v)
	}
	return false, nil
}

// sweep finds pages with content from an address to the end of a mapping, and
// notes that there is nothing between them. It returns how far it came, for an
// error of the kernel.
func (p *pass) sweep(s *space, v *vma, start uint64, q query, take func(region) error) (at uint64, err error) {
	last := start
	at, err = p.t.scanner.scan(s.pagemap, q, start, v.end, func(rs []region) error {
		for _, r := range rs {
			if err := p.absent(s, last, r.start); err != nil {
				return err
			}
			if err := take(r); err != nil {
				return err
			}
			last = r.end
		}
		return nil
	})
	if err != nil {
		return at, err
	}
	return at, p.absent(s, last, v.end)
}

// all takes all pages of a mapping.
func (p *pass) all(s *space, v *vma) error {
	_, err := p.sweep(s, v, v.start, p.t.scanner.content(v, 0, 0, 0), func(r region) error {
		return p.take(s, r.start, r.end)
	})
	return p.mine(err)
}

// mine is an error that is not the kernel's: those only mean that the process
// is ending.
func (p *pass) mine(err error) error {
	var errno unix.Errno
	if errors.As(err, &errno) && context.Cause(p.ctx) == nil {
		return nil
	}
	return err
}

// written takes the written pages of a mapping and write-protects them. Where
// the kernel knows of no protection yet, all are taken. The protection comes
// before the copying: what is written after it is found next time.
func (p *pass) written(s *space, v *vma, unsure bool) (watched bool, err error) {
	const flags = wpMatching | checkWPAsync
	take := func(r region) error { return p.take(s, r.start, r.end) }
	at := v.start
	switch {
	case !s.owns(v):
		err = unix.EPERM // it may be somebody else's, who needs what a scan takes
	case unsure:
		at, err = p.sweep(s, v, at, p.t.scanner.content(v, flags, 0, 0), take)
	default:
		at, err = p.t.scanner.scan(s.pagemap, p.t.scanner.content(v, flags, isWritten, 0), at, v.end, each(take))
	}
	for try := 0; err == unix.EPERM; try++ {
		if try == 3 { // mappings change faster than they are looked at
			s.unsure = true
			return false, nil
		}
		ok, err2 := p.claim(s, v, at)
		if !ok || err2 != nil {
			return false, err2
		}
		at, err = p.sweep(s, v, at, p.t.scanner.content(v, flags, 0, 0), take)
	}
	return err == nil, p.mine(err)
}

// each makes a function for regions of one for a region.
func each(do func(region) error) func([]region) error {
	return func(rs []region) error {
		for _, r := range rs {
			if err := do(r); err != nil {
				return err
			}
		}
		return nil
	}
}

var errFound = errors.New("found")

// claim registers a mapping from an address on, if it has pages. What belongs to
// a userfaultfd of the process itself, or cannot be tracked, stays untouched.
func (p *pass) claim(s *space, v *vma, start uint64) (ok bool, err error) {
	_, err = p.t.scanner.scan(s.pagemap, p.t.scanner.content(v, 0, 0, 0), start, v.end, func([]region) error { return errFound })
	if err == errFound {
		err = s.registerAll(v)
		if err == nil {
			return true, nil
		}
		if err == unix.EBUSY || err == unix.EINVAL || err == unix.EPERM {
			s.busy = append(s.busy, span{v.start, v.end})
		}
	}
	return false, p.absent(s, start, v.end)
}

// settle lists the mappings of a frozen process and takes what its dump may
// disturb.
func (p *pass) settle(s *space) error {
	s.vmas = append(s.vmas[:0], p.t.mappings(s)...)
	for i := range s.vmas {
		v := &s.vmas[i]
		switch {
		case v.class == shared:
			p.note(s, v)
		case v.exec && s.covers(v):
			if err := p.rest(s, v); err != nil {
				return err
			}
		}
	}
	return nil
}

// finish takes the rest of a frozen process.
func (p *pass) finish(s *space) error {
	if err := p.forget(s, s.vmas); err != nil {
		return err
	}
	for i := range s.vmas {
		v := &s.vmas[i]
		switch {
		case v.class == shared:
			p.gather(s, v, false)
		case !v.exec && s.covers(v):
			if err := p.rest(s, v); err != nil {
				return err
			}
		}
	}
	return nil
}

// rest takes the pages of a mapping that may differ from what was passed on,
// and compares what is there with what was: the kernel does not tell of all
// pages that went away.
func (p *pass) rest(s *space, v *vma) error {
	p.own = v.class == fileCopy
	var unclear []span
	q := p.t.scanner.content(v, 0, 0, isWritten|isWPAllowed|isSoftDirty)
	_, err := p.sweep(s, v, v.start, q, func(r region) error {
		switch {
		case v.class == fileCopy && r.categories&isSwapped != 0:
			unclear = append(unclear, span{r.start, r.end})
			return nil
		case s.mayDiffer(v, r.categories):
			return p.take(s, r.start, r.end)
		}
		return p.takeMissing(s, r.start, r.end)
	})
	for i := 0; i < len(unclear) && err == nil; i++ {
		err = p.clear(s, v, unclear[i])
	}
	if err != nil && p.mine(err) == nil {
		return fmt.Errorf("look at pages of process %d at %#x: %w", s.tasks[0].pid, v.start, err)
	}
	return err
}

// clear takes pages of a copy of a file that read as swapped: some may have
// been given back to the file, and have only left a marker. Reading tells.
func (p *pass) clear(s *space, v *vma, u span) error {
	var b [1]byte
	for at := u.start; at < u.end; at += PageSize {
		_, _ = unix.Pread(s.mem, b[:], int64(at))
	}
	part := *v
	part.start, part.end = u.start, u.end
	return p.all(s, &part)
}

// takeMissing takes the pages that were never passed on.
func (p *pass) takeMissing(s *space, start, end uint64) (err error) {
	s.have.missing(start, end, func(m span) {
		if err == nil {
			err = p.take(s, m.start, m.end)
		}
	})
	return err
}

// mayDiffer tells whether pages of these categories may have changed.
func (s *space) mayDiffer(v *vma, c uint64) bool {
	switch {
	case s.sums != nil || s.unsure:
		return true
	case s.soft:
		return c&isSoftDirty != 0
	case s.uffd >= 0:
		return c&isWPAllowed == 0 || c&isWritten != 0 || !s.owns(v)
	}
	return true
}

// walkSoft looks at the soft-dirty bits of a process and clears them, while it
// stands still: that is two steps.
func (p *pass) walkSoft(s *space) error {
	type found struct {
		v  int
		rs []region
	}
	var vmas []vma
	var all []found
	err := paused(s.tasks[0].pid, func() error {
		vmas = p.t.mappings(s)
		for i := range vmas {
			v := &vmas[i]
			if !v.private() {
				continue
			}
			all = append(all, found{v: i})
			_, err := p.t.scanner.scan(s.pagemap, p.t.scanner.content(v, 0, 0, isSoftDirty), v.start, v.end, func(rs []region) error {
				last := &all[len(all)-1]
				last.rs = append(last.rs, rs...)
				return nil
			})
			if err != nil {
				return err
			}
		}
		return os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", s.tasks[0].tid), []byte("4"), 0)
	})
	if err != nil { // it ended, or does not stop: it is read as a whole
		vmas = p.t.mappings(s)
		s.unsure = true
	}
	if err := p.forget(s, vmas); err != nil {
		return err
	}
	for i := range vmas {
		if vmas[i].class == shared {
			p.share(s, &vmas[i])
		} else if err != nil && vmas[i].private() {
			if err := p.all(s, &vmas[i]); err != nil {
				return err
			}
		}
	}
	if err != nil {
		return nil
	}
	s.unsure = false
	for _, f := range all {
		p.own = vmas[f.v].class == fileCopy
		if err := p.takeSoft(s, &vmas[f.v], f.rs); err != nil {
			return err
		}
	}
	return nil
}

// takeSoft takes the pages of a mapping that are dirty or new.
func (p *pass) takeSoft(s *space, v *vma, rs []region) error {
	last := v.start
	for _, r := range rs {
		if err := p.absent(s, last, r.start); err != nil {
			return err
		}
		last = r.end
		if s.mayDiffer(v, r.categories) {
			if err := p.take(s, r.start, r.end); err != nil {
				return err
			}
			continue
		}
		if err := p.takeMissing(s, r.start, r.end); err != nil {
			return err
		}
	}
	return p.absent(s, last, v.end)
}
