package inject

import (
	"errors"

	"golang.org/x/sys/unix"
)

// systemCall is the instruction "syscall".
var systemCall = []byte{0x0f, 0x05}

const (
	alignment = 1
	// restartNoHandler is the kernel's ERESTARTNOHAND: restart unless a handler
	// runs.
	restartNoHandler = 514
	restartMin       = 512 // ERESTARTSYS
	restartMax       = 516 // ERESTART_RESTARTBLOCK
)

func prepare(regs *unix.PtraceRegs, entry, nr uintptr, args []uintptr) {
	registers := []*uint64{&regs.Rdi, &regs.Rsi, &regs.Rdx, &regs.R10, &regs.R8, &regs.R9}
	for n, arg := range args {
		*registers[n] = uint64(arg)
	}
	regs.Rip = uint64(entry)
	regs.Rax = uint64(nr)
	regs.Orig_rax = ^uint64(0) // nothing to restart
}

// result reads what a system call returned.
func result(regs *unix.PtraceRegs, _ uintptr) uintptr {
	if n := -int64(regs.Rax); n >= restartMin && n <= restartMax {
		interrupted := -int64(unix.EINTR)
		return uintptr(interrupted)
	}
	return uintptr(regs.Rax)
}

// restartInterrupted has the kernel restart a call that it would let end with
// EINTR only because the task was stopped.
func (t *Task) restartInterrupted() error {
	var regs unix.PtraceRegs
	if err := t.getRegs(&regs); err != nil {
		if errors.Is(err, errCompat) {
			return nil
		}
		return err
	}
	if int64(regs.Rax) != -int64(unix.EINTR) || !neverRestarts(regs.Orig_rax) {
		return nil
	}
	again := int64(-restartNoHandler)
	regs.Rax = uint64(again)
	return t.setRegs(&regs)
}

// neverRestarts names the calls of signal(7) that end with EINTR after a stop.
func neverRestarts(nr uint64) bool {
	switch nr {
	case unix.SYS_EPOLL_WAIT, unix.SYS_EPOLL_PWAIT, unix.SYS_EPOLL_PWAIT2, unix.SYS_EPOLL_WAIT_OLD,
		unix.SYS_SEMOP, unix.SYS_SEMTIMEDOP, unix.SYS_RT_SIGTIMEDWAIT,
		unix.SYS_IO_GETEVENTS, unix.SYS_IO_PGETEVENTS, unix.SYS_IO_URING_ENTER:
		return true
	}
	return false
}
