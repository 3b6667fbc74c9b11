// Package pager gives restored processes their memory back while they run.
//
// CRIU has made the processes without the memory that the store holds
// (restore/memory), and they are frozen. Attach takes hold of every thread by
// ptrace, thaws the cgroup so that they stop in its hold, has each process make
// a userfaultfd of itself by injected system calls (package internal/inject),
// which it keeps nothing of, and registers its private anonymous mappings:
// where a page is missing, the fault waits for the pager. What cannot be lazy
// (pages of private file mappings, pages that the process has already, such as
// locked ones) is written at once. Then the cgroup is frozen again, the threads
// are let go, and the caller decides whether and when they run. Faults are
// served from Attach on, and Fill puts all the rest into place.
//
// Processes may fork, unmap, move and drop memory meanwhile: the userfaultfd
// tells (UFFD_FEATURE_EVENT_…), and a child is filled like its parent. The
// memory that a fork would have shared, and that was missing then, is not
// shared afterwards.
//
// The faults must be able to wait for a descriptor that the kernel serves in
// its own faults, too (a read(2) into missing memory): hence no
// UFFD_USER_MODE_ONLY, and the privilege that this needs (see descriptors).
//
// When the last descriptor of a userfaultfd is closed, the kernel gives out
// zero pages where memory is missing, and the container would compute with
// them. So the pager is exempt from the out-of-memory killer and locked in
// memory while it serves, and a guard, a small process of the same program,
// holds a second descriptor of each userfaultfd. If the pager is killed before
// Fill is done, the guard freezes the container and keeps it so: it is not
// corrupt, but what it lacks is lost with the pager's knowledge of what it had
// changed meanwhile, so it can only be killed and started again, from its last
// checkpoint if there is one. The guard ends when nothing of it is left. Only a
// fork in the very moment of the death can slip through.
//
// It needs Linux 6.7 (PAGEMAP_SCAN; /dev/userfaultfd is there since 6.1).
//
// Sources: userfaultfd(2), ioctl_userfaultfd(2), Linux
// Documentation/admin-guide/mm/userfaultfd.rst, fs/userfaultfd.c, CRIU
// criu/uffd.c.
package pager

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/vzkit/vzkit/freeze"
	"github.com/vzkit/vzkit/restore/memory"
)

const pageSize = memory.PageSize

// Config says whose memory is to come from where.
type Config struct {
	Processes []Process
	Store     *memory.Store
	Freezer   freeze.Freezer // of the container, frozen
	// Prefill bounds how many bytes of what the last rounds brought are put into
	// place before Attach returns.
	Prefill uint64
	// Guard is the pager's from now on, also after an error; nil: start one.
	Guard *Guard
}

// Process is a restored process that has pages in the store.
type Process struct {
	PID    int // on this host
	Space  uint64
	Ranges []Range // what the store knows of its memory, ascending; nil: all
}

// Range is [Start, End) of virtual addresses.
type Range struct{ Start, End uint64 }

// Pager serves the processes' faults.
type Pager struct {
	config      Config
	workers     int
	server      *server
	guard       *Guard
	done, total atomic.Uint64 // bytes
	reporting   sync.Mutex

	mu        sync.Mutex
	processes []*process
	shares    map[uint64]*share
	closed    bool
	err       error // the first of the serving
}

// Attach makes the processes' memory lazy. They are frozen before and after,
// also after an error; then they must not run any more.
func Attach(ctx context.Context, c Config) (*Pager, error) {
	p := &Pager{config: c, workers: min(2, runtime.NumCPU()), shares: map[uint64]*share{}}
	var err error
	if p.server, err = newServer(); err != nil {
		return nil, err
	}
	if p.guard = c.Guard; p.guard == nil {
		if p.guard, err = StartGuard(c.Freezer); err != nil {
			return nil, errors.Join(err, p.server.close())
		}
	}
	if err := p.attach(ctx); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	if err := p.prefill(ctx); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	p.server.start(func(index int) { p.note(p.all()[index].serve()) })
	return p, nil
}

// Close ends the serving. What is missing then is missing for good: unless Fill
// has ended, the processes must not run any more. Closing twice is fine.
func (p *Pager) Close() error {
	p.mu.Lock()
	closed := p.closed
	p.closed = true
	p.mu.Unlock()
	if closed {
		return nil
	}
	err := p.server.close()
	for _, proc := range p.all() {
		proc.mu.Lock()
		err = errors.Join(err, proc.end())
		proc.mu.Unlock()
	}
	p.note(errors.Join(err, p.guard.Close()))
	return p.err
}

// all lists the processes, the ended ones included.
func (p *Pager) all() []*process {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.processes[:len(p.processes):len(p.processes)]
}

func (p *Pager) newProcess(space uint64, fd int) *process {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.shares[space] == nil {
		p.shares[space] = &share{}
	}
	return &process{store: p.config.Store, space: space, share: p.shares[space], forks: p.forked, guard: p.guard, fd: fd, need: newNeed()}
}

// adopt begins to serve a process.
func (p *Pager) adopt(proc *process) (err error) {
	if proc.held, err = p.guard.hold(proc.fd); err != nil {
		return err
	}
	proc.share.join()
	return p.watch(proc)
}

// forked begins to serve a child. It is served also if the guard has died.
func (p *Pager) forked(child *process) {
	child.held, _ = p.guard.hold(child.fd)
	p.note(p.watch(child))
}

func (p *Pager) watch(proc *process) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.processes = append(p.processes, proc)
	p.total.Add(proc.need.count * pageSize)
	return p.server.watch(proc.fd, len(p.processes)-1)
}

// note keeps the first error of the serving, which goes on: others wait, too.
func (p *Pager) note(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err == nil {
		p.err = err
	}
}

// prefill puts what the last rounds brought, as far as is asked for.
func (p *Pager) prefill(ctx context.Context) error {
	left := p.config.Prefill
	for n := uint8(0); n < recent && n < p.config.Store.Round(); n++ {
		for _, proc := range p.all() {
			for r := range p.config.Store.Runs(proc.space, 0, 1<<63, p.config.Store.Round()-n) {
				if left < uint64(r.Count)*pageSize {
					return nil
				}
				done, err := proc.fillRun(ctx, r)
				if err != nil {
					return err
				}
				p.done.Add(done)
				left -= done
			}
		}
	}
	return nil
}
