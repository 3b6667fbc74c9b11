package pager

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vzkit/vzkit/internal/inject"
	"github.com/vzkit/vzkit/restore/memory"
)

// few is up to how many pages of a mapping are written at once rather than
// lazily: a fault costs more than they do.
const few = 8

// plan is what is to be done in one process.
type plan struct {
	Process
	lazy  []mapping
	eager []segment // in runs of the store
}

// attach does all that needs the tasks. It has a thread of its own, which ends
// with it: should anything fail, the kernel lets go of what is still held.
func (p *Pager) attach(ctx context.Context) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread()
		result <- p.attachHere(ctx)
	}()
	return <-result
}

func (p *Pager) attachHere(ctx context.Context) error {
	plans := make([]plan, 0, len(p.config.Processes))
	for _, process := range p.config.Processes {
		pl, err := p.plan(process)
		if err != nil {
			return err
		}
		plans = append(plans, pl)
	}
	h, err := seize(p.config.Freezer.Dir, p.config.Processes)
	if err != nil {
		return err
	}
	// From here on the tasks are thawed, and held by us alone.
	if err := p.config.Freezer.Thaw(); err != nil {
		return err
	}
	err = h.wait()
	if err == nil {
		err = p.install(plans, h)
	}
	// Frozen before they are let go, whatever happened.
	err = errors.Join(err, p.config.Freezer.Mark(), h.release())
	return errors.Join(err, p.frozen(ctx))
}

// frozen waits until all tasks stand still again. Whatever happens it thaws
// none.
func (p *Pager) frozen(ctx context.Context) error {
	for {
		frozen, err := p.config.Freezer.Frozen()
		if err != nil || frozen {
			return err
		}
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("freeze again: %w", err)
		}
		time.Sleep(100 * time.Microsecond)
		if err := p.config.Freezer.Mark(); err != nil { // v1 may need to be asked again
			return err
		}
	}
}

// plan sorts a process's mappings that the store has pages for.
func (p *Pager) plan(process Process) (plan, error) {
	pl := plan{Process: process}
	mappings, err := privateMappings(process.PID)
	if err != nil {
		return pl, err
	}
	for _, m := range mappings {
		var runs []segment
		var pages uint64
		for _, r := range process.within(m) {
			for run := range p.config.Store.Runs(process.Space, r.Start, r.End, 1) {
				runs = append(runs, segment{run.Address, run.End(), run.Address})
				pages += uint64(run.Count)
			}
		}
		if m.anonymous && pages > few {
			pl.lazy = append(pl.lazy, m)
		} else {
			pl.eager = append(pl.eager, runs...)
		}
	}
	return pl, nil
}

// within cuts a mapping to what the store knows of.
func (p Process) within(m mapping) (found []Range) {
	if p.Ranges == nil {
		return []Range{{m.start, m.end}}
	}
	for _, r := range p.Ranges {
		if from, to := max(r.Start, m.start), min(r.End, m.end); from < to {
			found = append(found, Range{from, to})
		}
	}
	return found
}

// install makes the userfaultfds and writes what is not lazy, while all tasks
// stand still.
func (p *Pager) install(plans []plan, h *held) error {
	d, err := newDescriptors()
	if err != nil {
		return err
	}
	defer d.close()
	for _, pl := range plans {
		if err := p.installIn(pl, d, h.byProcess[pl.PID]); err != nil && !errors.Is(err, inject.ErrGone) {
			return err
		}
	}
	return nil
}

func (p *Pager) installIn(pl plan, d *descriptors, task *inject.Task) error {
	if task == nil {
		return nil // a zombie has no memory
	}
	fd := -1
	if len(pl.lazy) > 0 {
		var err error
		if fd, err = d.of(pl.PID, task); err != nil {
			return err
		}
	}
	w, err := openTarget(pl.PID)
	if err != nil {
		return errors.Join(err, closeFD(fd))
	}
	defer w.close()
	proc := p.newProcess(pl.Space, fd)
	for _, m := range pl.lazy {
		there, err := p.registerMapping(proc, w, pl, m)
		if err != nil {
			return errors.Join(err, closeFD(fd))
		}
		pl.eager = append(pl.eager, there...)
	}
	if err := p.writeAll(w, pl.Space, pl.eager); err != nil {
		return errors.Join(err, closeFD(fd))
	}
	if fd < 0 {
		return p.config.Store.Release(pl.Space, 0, 1<<63)
	}
	return p.adopt(proc)
}

func closeFD(fd int) error {
	if fd < 0 {
		return nil
	}
	return unix.Close(fd)
}

// registerMapping makes one mapping lazy. It returns what is to be written
// because the process has those pages already, which no fault would tell of.
func (p *Pager) registerMapping(proc *process, w *target, pl plan, m mapping) (eager []segment, err error) {
	there, err := pagesThere(w.pagemap, m.start, m.end)
	if err != nil {
		return nil, err
	}
	lazy := register(proc.fd, m.start, m.end) == nil // some mappings cannot be
	if lazy {
		proc.layout.add(segment{m.start, m.end, m.start})
	}
	for _, r := range pl.within(m) {
		for run := range p.config.Store.Runs(pl.Space, r.Start, r.End, 1) {
			if !lazy {
				eager = append(eager, segment{run.Address, run.End(), run.Address})
				continue
			}
			proc.need.set(run.Address, run.End(), true)
		}
	}
	for _, t := range there {
		for at := t.start; lazy && at < t.end; {
			from, to, ok := proc.need.next(at, t.end)
			if !ok {
				break
			}
			eager = append(eager, segment{from, to, from})
			proc.need.set(from, to, false)
			at = to
		}
	}
	return eager, nil
}

// writeAll writes pages of the store into a process.
func (p *Pager) writeAll(w *target, space uint64, runs []segment) error {
	for _, s := range runs {
		for s.start < s.end {
			end := min(s.end, (s.start/tableSize+1)*tableSize)
			data, err := p.config.Store.View(space, memory.Run{Address: s.start, Count: uint32((end - s.start) / pageSize)})
			if err != nil {
				return err
			}
			if err := w.write(s.start, data); err != nil {
				return err
			}
			s.start = end
		}
	}
	return nil
}

// target is a process's memory, from outside.
type target struct{ memory, pagemap *os.File }

func openTarget(pid int) (*target, error) {
	mem, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", pid), os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("open memory of process %d: %w", pid, err)
	}
	pagemap, err := os.Open(fmt.Sprintf("/proc/%d/pagemap", pid))
	if err != nil {
		mem.Close()
		return nil, fmt.Errorf("open pagemap of process %d: %w", pid, err)
	}
	return &target{mem, pagemap}, nil
}

func (w *target) close() {
	w.memory.Close()
	w.pagemap.Close()
}

// write writes also where the process itself may only read (proc_pid_mem(5)).
func (w *target) write(address uint64, data []byte) error {
	for len(data) > 0 {
		n, err := syscall.Pwrite(int(w.memory.Fd()), data, int64(address))
		if err == syscall.EINTR {
			continue
		}
		if err == nil && n == 0 {
			err = syscall.EIO
		}
		if err != nil {
			return fmt.Errorf("write memory at %#x: %w", address, err)
		}
		address, data = address+uint64(n), data[n:]
	}
	return nil
}
