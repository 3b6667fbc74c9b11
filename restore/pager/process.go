package pager

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vzkit/vzkit/restore/memory"
)

// process is the memory of one process that is still being filled. What it
// does to its mappings and what is put into them exclude each other, by its
// lock: the kernel tells of a change before it happens (or, of a move, before
// the process goes on), refuses to put pages until that is heard, and after
// that relies on the listener to put no page that the change has made old.
type process struct {
	store *memory.Store
	space uint64
	share *share
	forks func(child *process) // told of a child
	guard *Guard

	asked   atomic.Int32 // how many wait for the lock to serve faults
	mu      sync.Mutex
	fd      int // its userfaultfd; -1 when all is in place
	layout  layout
	need    need     // pages of the store that it lacks, by where they were
	waiting []uint64 // faults that wait
	since   int      // pages put since the events were looked at
	filled  []uint64 // blocks that faults brought, which the store may still have
	held    uint32   // its number with the guard
}

// share counts the processes that still need pages of one space.
type share struct {
	mu    sync.Mutex
	users int
}

func (s *share) join() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.users++
}

// leave tells whether it was the last.
func (s *share) leave() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.users--
	return s.users == 0
}

func (s *share) alone() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.users == 1
}

// errBusy says that the process changes its mappings: hear of it first. A
// piece that errMoved speaks of is not where it was, or will be so: that, too,
// is yet to be heard.
var (
	errBusy  = errors.New("process changes its mappings")
	errMoved = errors.New("process has changed a mapping")
)

// patience bounds how long a process may be in the middle of a change.
const patience = 30 * time.Second

// around is how much is put at a fault: the rest of the block of that size.
const around = 64 * pageSize

// serve hears all events and resolves all faults.
func (p *process) serve() error {
	p.asked.Add(1)
	p.mu.Lock()
	p.asked.Add(-1)
	defer p.mu.Unlock()
	return p.settle()
}

// settle is serve for those who hold the lock.
func (p *process) settle() error {
	p.since = 0
	for begin := time.Now(); ; {
		if err := p.hear(); err != nil {
			return err
		}
		err := p.resolveAll()
		if err != errBusy || time.Since(begin) > patience {
			return err
		}
		time.Sleep(10 * time.Microsecond) // for the process, to go on with the change
	}
}

// hear reads all messages. Faults may come before an event that was earlier,
// so they wait until all are read.
func (p *process) hear() error {
	var buf [64 * messageSize]byte
	for p.fd >= 0 {
		n, err := unix.Read(p.fd, buf[:])
		switch err {
		case nil:
		case unix.EAGAIN:
			return nil
		case unix.EINTR:
			continue
		default:
			return fmt.Errorf("read userfaultfd: %w", err)
		}
		for at := 0; at+messageSize <= n; at += messageSize {
			if err := p.handle(decode(buf[at:])); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p *process) handle(m message) error {
	switch v := m.values; m.event {
	case eventFault:
		p.waiting = append(p.waiting, m.address&^(pageSize-1))
	case eventFork:
		p.fork(m.forkFD)
	case eventRemap:
		p.layout.move(v[0], v[1], v[2])
	case eventRemove, eventUnmap:
		for _, s := range p.layout.cut(v[0], v[1]) {
			p.need.set(s.origin, s.originEnd(), false)
		}
	default:
		return fmt.Errorf("userfaultfd event %#x", m.event)
	}
	return nil
}

// fork makes the child that lacks what its parent lacks.
func (p *process) fork(fd int) {
	child := &process{
		store: p.store, space: p.space, share: p.share, forks: p.forks, guard: p.guard, fd: fd,
		layout: layout{byStart: append([]segment(nil), p.layout.byStart...)}, need: p.need.clone(),
	}
	p.share.join()
	p.forks(child)
}

// resolveAll resolves the faults that wait, up to the first that cannot be.
func (p *process) resolveAll() error {
	for len(p.waiting) > 0 && p.fd >= 0 {
		if err := p.resolve(p.waiting[0]); err != nil {
			return err
		}
		p.waiting = p.waiting[1:]
	}
	p.waiting = nil
	return nil
}

// resolve puts the page of a fault, and some after it. Where no page can be put
// the task looks again, and fails or faults again.
func (p *process) resolve(address uint64) error {
	var err error
	if s, ok := p.layout.origin(address); ok && p.need.has(s.origin) {
		end := min(s.originEnd(), s.origin-s.origin%around+around)
		err = p.fill(s, p.need.seek(s.origin, end, false))
		p.filled = append(p.filled, s.origin-s.origin%around)
	} else {
		err = p.outcome(zeroIn(p.fd, address), address)
	}
	if err == errMoved {
		return p.wake(address)
	}
	return err
}

// outcome sorts out how an attempt to put a page ended. That it is there is no
// error.
func (p *process) outcome(err error, address uint64) error {
	switch err {
	case nil:
		return nil
	case unix.EEXIST:
		return p.wake(address)
	case unix.EAGAIN, unix.ENOMEM: // which a memory limit can cause, and end
		return errBusy
	case unix.ENOENT:
		return errMoved
	case unix.ESRCH, unix.ENOSPC: // the process has ended
		return p.end()
	}
	return fmt.Errorf("put page at %#x: %w", address, err)
}

func (p *process) wake(address uint64) error {
	err := wake(p.fd, address, address+pageSize)
	if err == unix.EAGAIN {
		return errBusy
	}
	if err != nil {
		return fmt.Errorf("wake at %#x: %w", address, err)
	}
	return nil
}

// fill puts the needed pages of the store up to the origin end, which are in
// one piece of the store, beginning where s is.
func (p *process) fill(s segment, end uint64) error {
	for s.origin < end && p.fd >= 0 {
		data, err := p.store.View(p.space, memory.Run{Address: s.origin, Count: uint32((end - s.origin) / pageSize)})
		if err != nil {
			return err
		}
		done, err := copyIn(p.fd, s.start, data)
		if done == 0 && err == unix.EEXIST { // nobody needs it
			p.need.set(s.origin, s.origin+pageSize, false)
		}
		p.need.set(s.origin, s.origin+done, false)
		p.since += int(done / pageSize)
		switch {
		case err == nil || done > 0:
		case err == unix.ENOENT && end-s.origin > pageSize: // more than one mapping, perhaps
			end = s.origin + (end-s.origin)/2/pageSize*pageSize
		default:
			if err := p.outcome(err, s.start); err != nil {
				return err
			}
			done = pageSize
		}
		s.start, s.origin = s.start+done, s.origin+done
	}
	return nil
}

// end lets go of the process. All that it lacks is in place, or it is no more.
func (p *process) end() error {
	if p.fd < 0 {
		return nil
	}
	_ = unix.Close(p.fd)
	err := p.guard.drop(p.held) // the last one, which unregisters all and wakes all
	p.fd, p.need, p.waiting = -1, newNeed(), nil
	if p.share.leave() {
		err = errors.Join(err, p.store.Release(p.space, 0, 1<<63))
	}
	return err
}
