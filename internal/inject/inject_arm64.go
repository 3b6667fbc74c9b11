package inject

import "golang.org/x/sys/unix"

// systemCall is the instruction "svc #0".
var systemCall = []byte{0x01, 0x00, 0x00, 0xd4}

const alignment = 4

func prepare(regs *unix.PtraceRegs, entry, nr uintptr, args []uintptr) {
	for n, arg := range args {
		regs.Regs[n] = uint64(arg)
	}
	regs.Pc = uint64(entry)
	regs.Regs[8] = uint64(nr)
}

// result reads what a system call returned. One that the kernel is about to
// restart stands before its instruction again.
func result(regs *unix.PtraceRegs, entry uintptr) uintptr {
	if regs.Pc == uint64(entry) {
		interrupted := -int64(unix.EINTR)
		return uintptr(interrupted)
	}
	return uintptr(regs.Regs[0])
}

// restartInterrupted does nothing: the call's first argument is lost.
func (t *Task) restartInterrupted() error { return nil }
