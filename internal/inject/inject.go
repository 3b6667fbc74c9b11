// Package inject runs system calls in another process, from outside, by
// ptrace, so that the process notices nothing: no signal, no EINTR, no changed
// byte of its memory.
//
// A task (one thread, by its id) is seized and interrupted, which stops it
// inside the kernel's signal code (PTRACE_EVENT_STOP). Its registers are then
// set to a system call instruction that its vDSO has anyway, with its signals
// blocked (PTRACE_SETSIGMASK) and its seccomp filters suspended
// (PTRACE_O_SUSPEND_SECCOMP, where the caller may). Each call ends in another
// such stop: there the old registers are put back, and the kernel goes on to
// restart the system call that the task had been waiting in, if any. What a
// restartable sequence (rseq(2)) must know of is put back, too.
//
// Some calls end with EINTR when a task is stopped, by anybody, and then
// continued (signal(7), "Interruption of system calls … by stop signals"):
// epoll_wait is one. On amd64 they are made to restart here; a relative
// timeout then begins again. On arm64 the kernel has forgotten their first
// argument and the EINTR stays; relative sleeps begin again.
//
// ptrace requests work only from the thread that seized: callers hold it with
// runtime.LockOSThread. If that thread ends, the kernel lets go of all its
// tasks, also of those that were never waited for.
//
// Sources: ptrace(2), Linux kernel/ptrace.c, kernel/signal.c,
// arch/x86/kernel/signal.c, arch/arm64/kernel/signal.c.
package inject

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ErrGone is returned for tasks that have ended, zombies included.
var ErrGone = errors.New("task has ended")

var errCompat = errors.New("32-bit program")

const (
	suspendSeccomp = 1 << 21 // PTRACE_O_SUSPEND_SECCOMP
	options        = unix.PTRACE_O_TRACESYSGOOD
	syscallStop    = unix.SIGTRAP | 0x80
)

// Task is a seized task.
type Task struct {
	tid, tgid int
	// What the task gets back, once a system call was injected.
	saved *context
	// stops counts the SIGSTOPs that came meanwhile; it cannot be blocked.
	stops int
	// entry is the address of the system call instruction.
	entry uintptr
}

// context is what an injection changes in a task.
type context struct {
	regs unix.PtraceRegs
	mask uint64
	rseq rseq
}

// Stop seizes a task and waits until it stands still.
func Stop(tid int) (*Task, error) {
	t, err := Seize(tid)
	if err != nil {
		return nil, err
	}
	return t, t.Wait()
}

// Seize seizes a task and interrupts it. A frozen one stops only when it is
// thawed; see Wait.
func Seize(tid int) (*Task, error) {
	tgid := tid
	if unix.Tgkill(tid, tid, 0) == unix.ESRCH { // not the leader
		var err error
		if tgid, err = leader(tid); err != nil {
			return nil, err
		}
	}
	return SeizeThread(tgid, tid)
}

// SeizeThread is Seize for a caller who knows the process, too.
func SeizeThread(pid, tid int) (*Task, error) {
	if err := request(unix.PTRACE_SEIZE, tid, 0, options); err != nil {
		return nil, seizeError(tid, err)
	}
	t := &Task{tid: tid, tgid: pid}
	if err := request(unix.PTRACE_INTERRUPT, tid, 0, 0); err != nil {
		return nil, t.failed("interrupt", err)
	}
	return t, nil
}

// seizeError tells a task that has ended from one that must not be traced.
func seizeError(tid int, err error) error {
	if err == unix.ESRCH {
		return fmt.Errorf("seize task %d: %w", tid, ErrGone)
	}
	if ended(tid) {
		return fmt.Errorf("seize task %d: %w", tid, ErrGone)
	}
	return fmt.Errorf("seize task %d: %w", tid, err)
}

// ended tells whether a task is a zombie or no more.
func ended(tid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", tid))
	if err != nil {
		return true
	}
	state := stat[bytes.LastIndexByte(stat, ')')+1:]
	return len(state) > 1 && bytes.IndexByte([]byte("ZXx"), state[1]) >= 0
}

// leader reads the process id of a thread.
func leader(tid int) (int, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", tid))
	if err != nil {
		return 0, fmt.Errorf("seize task %d: %w", tid, ErrGone)
	}
	var tgid int
	if _, rest, ok := bytes.Cut(text, []byte("\nTgid:")); ok {
		_, err = fmt.Sscan(string(rest[:min(len(rest), 16)]), &tgid)
	}
	if err != nil || tgid == 0 {
		return 0, fmt.Errorf("read process of task %d: %w", tid, ErrGone)
	}
	return tgid, nil
}

// ID is the thread's id on this host. An exec may change it.
func (t *Task) ID() int { return t.tid }

// Wait waits until a task stands still that Seize has interrupted.
func (t *Task) Wait() error {
	if err := t.arrive(); err != nil {
		return err
	}
	return t.restartInterrupted()
}

// arrive waits for the first event of a task. It looks instead of sleeping: a
// leader that ends while threads live on is no event.
func (t *Task) arrive() error {
	for n := 0; ; n++ {
		var info unix.Siginfo
		err := unix.Waitid(unix.P_PID, t.tid, &info, unix.WEXITED|unix.WSTOPPED|unix.WALL|unix.WNOHANG|unix.WNOWAIT, nil)
		if err != nil && err != unix.EINTR || info.Signo != 0 {
			return t.waitStop()
		}
		if n < spins {
			_, _, _ = unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0)
			continue
		}
		if n%spins == 0 && ended(t.tid) {
			return fmt.Errorf("wait for task %d: %w", t.tid, ErrGone)
		}
		_ = unix.Nanosleep(&pause, nil)
	}
}

// spins is how often a task is looked at before its observer sleeps a while.
const spins = 50

var pause = unix.Timespec{Nsec: 20_000}

// waitStop waits for the stop that an interrupt asked for. Any other one
// cancels that (kernel/signal.c, ptrace_stop), so it is asked for again.
func (t *Task) waitStop() error {
	for {
		event, sig, err := t.wait()
		if err != nil {
			return err
		}
		if event == unix.PTRACE_EVENT_STOP {
			return nil
		}
		if event != 0 || sig == syscallStop {
			sig = 0
		} else if t.saved != nil { // signals are blocked, so it is this one
			sig = t.keep(sig)
		}
		if err := request(unix.PTRACE_INTERRUPT, t.tid, 0, 0); err != nil {
			return t.failed("interrupt", err)
		}
		if err := request(unix.PTRACE_CONT, t.tid, 0, uintptr(sig)); err != nil {
			return t.failed("continue", err)
		}
	}
}

// keep puts a SIGSTOP off until the release.
func (t *Task) keep(sig unix.Signal) unix.Signal {
	if sig != unix.SIGSTOP {
		return sig
	}
	t.stops++
	return 0
}

// wait waits for the next stop.
func (t *Task) wait() (event int, sig unix.Signal, err error) {
	var status unix.WaitStatus
	for {
		_, err := unix.Wait4(t.tid, &status, unix.WALL, nil)
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.ECHILD && t.tid != t.tgid:
			t.tid = t.tgid // an exec has made it the leader, or it is gone
			continue
		case err != nil || !status.Stopped():
			return 0, 0, fmt.Errorf("wait for task %d: %w", t.tid, ErrGone)
		}
		return int(status) >> 16, status.StopSignal(), nil
	}
}

// Syscall runs a system call in a task that stands still. It does not wait: a
// call that would sleep returns EINTR. The error is the call's errno, or one
// that wraps ErrGone.
func (t *Task) Syscall(nr uintptr, args ...uintptr) (uintptr, error) {
	if err := t.save(); err != nil {
		return 0, err
	}
	regs := t.saved.regs
	prepare(&regs, t.entry, nr, args)
	if err := t.setRegs(&regs); err != nil {
		return 0, err
	}
	if err := t.enter(); err != nil {
		return 0, err
	}
	// With the interrupt pending the call ends in the stop.
	if err := request(unix.PTRACE_INTERRUPT, t.tid, 0, 0); err != nil {
		return 0, t.failed("interrupt", err)
	}
	if err := request(unix.PTRACE_CONT, t.tid, 0, 0); err != nil {
		return 0, t.failed("continue", err)
	}
	if err := t.waitStop(); err != nil {
		return 0, err
	}
	if err := t.getRegs(&regs); err != nil {
		return 0, err
	}
	value := result(&regs, t.entry)
	if errno := -int64(value); errno > 0 && errno < 4096 {
		return 0, unix.Errno(errno)
	}
	return value, nil
}

// enter lets a task run to the entry of the system call.
func (t *Task) enter() error {
	for {
		if err := request(unix.PTRACE_SYSCALL, t.tid, 0, 0); err != nil {
			return t.failed("continue", err)
		}
		event, sig, err := t.wait()
		if err != nil {
			return err
		}
		switch {
		case event != 0: // the job control's news
		case sig == syscallStop:
			return nil
		case t.keep(sig) != 0:
			return fmt.Errorf("run system call in task %d: got signal %v", t.tid, sig)
		}
	}
}

// save keeps what an injection changes, once.
func (t *Task) save() error {
	if t.saved != nil {
		return nil
	}
	var c context
	err := t.getRegs(&c.regs)
	if err != nil {
		return err
	}
	if t.entry, err = t.instruction(); err != nil {
		return err
	}
	if c.rseq, err = t.readRseq(); err != nil {
		return err
	}
	if err := requestAt(unix.PTRACE_GETSIGMASK, t.tid, unsafe.Sizeof(c.mask), unsafe.Pointer(&c.mask)); err != nil {
		return t.failed("read signal mask", err)
	}
	all := ^uint64(0)
	if err := requestAt(unix.PTRACE_SETSIGMASK, t.tid, unsafe.Sizeof(all), unsafe.Pointer(&all)); err != nil {
		return t.failed("block signals", err)
	}
	t.saved = &c
	// Only now: the task must not run a step of its own without its filters.
	err = request(unix.PTRACE_SETOPTIONS, t.tid, 0, options|suspendSeccomp)
	if err != nil && err != unix.EPERM {
		return t.failed("suspend seccomp", err)
	}
	return nil
}

// Release lets a task go that stands still, as it was. A group-stopped one
// stays stopped. One that has ended is no error.
func (t *Task) Release() error {
	err := t.restore()
	if detach := request(unix.PTRACE_DETACH, t.tid, 0, 0); detach != nil && err == nil {
		err = t.failed("detach", detach)
	}
	if errors.Is(err, ErrGone) {
		return nil
	}
	return err
}

func (t *Task) restore() error {
	if t.saved == nil {
		return nil
	}
	if err := t.writeRseq(t.saved.rseq); err != nil {
		return err
	}
	if err := t.setRegs(&t.saved.regs); err != nil {
		return err
	}
	mask := t.saved.mask
	if err := requestAt(unix.PTRACE_SETSIGMASK, t.tid, unsafe.Sizeof(mask), unsafe.Pointer(&mask)); err != nil {
		return t.failed("restore signal mask", err)
	}
	if t.stops > 0 {
		if err := unix.Tgkill(t.tgid, t.tid, unix.SIGSTOP); err != nil {
			return t.failed("stop again", err)
		}
	}
	t.saved = nil
	return nil
}

func (t *Task) getRegs(regs *unix.PtraceRegs) error {
	return t.regset("read registers", unix.PTRACE_GETREGSET, regs)
}

func (t *Task) setRegs(regs *unix.PtraceRegs) error {
	return t.regset("set registers", unix.PTRACE_SETREGSET, regs)
}

func (t *Task) regset(what string, req int, regs *unix.PtraceRegs) error {
	iov := unix.Iovec{Base: (*byte)(unsafe.Pointer(regs)), Len: uint64(unsafe.Sizeof(*regs))}
	if err := requestAt(req, t.tid, prStatus, unsafe.Pointer(&iov)); err != nil {
		return t.failed(what, err)
	}
	if iov.Len != uint64(unsafe.Sizeof(*regs)) {
		return fmt.Errorf("%s of task %d: %w", what, t.tid, errCompat)
	}
	return nil
}

func (t *Task) failed(what string, err error) error {
	if err == unix.ESRCH {
		err = ErrGone
	}
	return fmt.Errorf("%s of task %d: %w", what, t.tid, err)
}

const prStatus = 1 // NT_PRSTATUS

// request is ptrace(2).
func request(req, tid int, addr, data uintptr) error {
	_, _, errno := unix.Syscall6(unix.SYS_PTRACE, uintptr(req), uintptr(tid), addr, data, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// requestAt is ptrace(2) with data of ours.
func requestAt(req, tid int, addr uintptr, data unsafe.Pointer) error {
	_, _, errno := unix.Syscall6(unix.SYS_PTRACE, uintptr(req), uintptr(tid), addr, uintptr(data), 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}
