package pager

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vzkit/vzkit/restore/memory"
)

const (
	// piece is how much is put at a time in the background: a fault may have to
	// wait for it.
	piece = 64 << 10
	// look is after how many pages faults are looked for.
	look = 16
	// recent is how many rounds are filled one by one, the last one first.
	recent = 3
	// reportEvery is how many bytes are filled between reports.
	reportEvery = 16 << 20
)

// Progress is told how many bytes are in place, of how many. Forks add to both.
type Progress func(done, total uint64)

// Fill puts all that is missing into place, what was written last first, while
// faults are served, and ends the serving: after it nothing is registered and
// nothing runs. The store keeps nothing of what it held for the processes. It
// is to be called when the container was thawed, or before. On error, the
// pager goes on serving.
func (p *Pager) Fill(ctx context.Context, progress Progress) error {
	last := p.config.Store.Round()
	for n := range min(recent, last-1) {
		if err := p.pass(ctx, last-n, progress); err != nil {
			return err
		}
	}
	for {
		if err := p.pass(ctx, 1, progress); err != nil {
			return err
		}
		if p.finished() {
			p.report(progress, 0)
			return p.Close()
		}
	}
}

// finished tells whether no process is left, forked ones included.
func (p *Pager) finished() bool {
	for _, proc := range p.all() {
		proc.mu.Lock()
		busy := proc.fd >= 0
		proc.mu.Unlock()
		if busy {
			return false
		}
	}
	return true
}

// pass fills in every process what the given round and later ones brought. The
// first round is all there is, and the end of the process's filling.
func (p *Pager) pass(ctx context.Context, since uint8, progress Progress) error {
	work := p.all()
	var next atomic.Int32
	errs := make([]error, p.workers)
	var wg sync.WaitGroup
	for n := range errs {
		wg.Go(func() {
			setNice(fillNice)
			for i := next.Add(1) - 1; int(i) < len(work) && errs[n] == nil; i = next.Add(1) - 1 {
				errs[n] = p.fillProcess(ctx, work[i], since, progress)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (p *Pager) fillProcess(ctx context.Context, proc *process, since uint8, progress Progress) error {
	for r := range p.config.Store.Runs(proc.space, 0, 1<<63, since) {
		done, err := proc.fillRun(ctx, r)
		if err != nil {
			return err
		}
		p.report(progress, done)
	}
	if since > 1 {
		return nil
	}
	return proc.finish()
}

// report adds to what is done and tells of it now and then.
func (p *Pager) report(progress Progress, done uint64) {
	p.reporting.Lock()
	defer p.reporting.Unlock()
	now := p.done.Add(done)
	if progress != nil && (done == 0 || now/reportEvery != (now-done)/reportEvery) {
		progress(now, p.total.Load())
	}
}

// fillRun puts what is needed of a run of the store, piece by piece, and drops
// it from the store if nobody else needs it. It returns how many bytes the
// process does not need any more.
func (p *process) fillRun(ctx context.Context, r memory.Run) (done uint64, err error) {
	moved := time.Now()
	for at := r.Address; at < r.End(); {
		if err := p.releaseFilled(); err != nil {
			return done, err
		}
		next, n, err := p.fillPiece(at, r.End())
		done += n
		switch {
		case err == errBusy || err == errMoved:
			if time.Since(moved) > patience {
				return done, err
			}
			time.Sleep(10 * time.Microsecond) // for the process, to go on with the change
		case err != nil:
			return done, err
		default:
			at, moved = next, time.Now()
		}
		if err := ctx.Err(); err != nil {
			return done, err
		}
	}
	return done, p.release(r)
}

// release drops a run from the store, if this process alone could need it and
// does not.
func (p *process) release(r memory.Run) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fd < 0 || !p.share.alone() {
		return nil
	}
	if _, _, left := p.need.next(r.Address, r.End()); left {
		return nil
	}
	return p.store.Release(p.space, r.Address, r.End())
}

// releaseFilled drops from the store what faults have brought: that would stay
// there until the filling comes by.
func (p *process) releaseFilled() error {
	p.mu.Lock()
	blocks := p.filled
	p.filled = nil
	p.mu.Unlock()
	for _, at := range blocks {
		if err := p.release(memory.Run{Address: at, Count: around / pageSize}); err != nil {
			return err
		}
	}
	return nil
}

// fillPiece puts the first piece that is needed between two origins, and
// returns where to go on.
func (p *process) fillPiece(at, end uint64) (next, done uint64, err error) {
	for p.asked.Load() > 0 { // whoever serves a fault comes first
		runtime.Gosched()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	before := p.need.count
	defer func() { done = (before - min(before, p.need.count)) * pageSize }()
	if p.since >= look {
		if err := p.settle(); err != nil {
			return at, 0, err
		}
	}
	from, to, ok := p.need.next(at, end)
	if !ok || p.fd < 0 {
		return end, 0, nil
	}
	s, ok := p.layout.current(from)
	if !ok { // not to be: needed is what is somewhere
		return at, 0, fmt.Errorf("stored memory at %#x is nowhere", from)
	}
	to = min(to, s.originEnd(), from+piece)
	if err := p.fill(s, to); err != nil {
		p.since = look // hear, before the next attempt
		return at, 0, err
	}
	return from, 0, nil
}

// finish ends a process that lacks nothing any more.
func (p *process) finish() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.settle(); err != nil {
		return err
	}
	if p.need.count > 0 {
		return nil
	}
	return p.end()
}
