package inject

import (
	"encoding/binary"
	"unsafe"

	"golang.org/x/sys/unix"
)

// rseq is the critical section that a task is in, or zero. The kernel aborts
// it when the task returns to user mode inside; it forgets it when the task
// returns elsewhere, and an injected call is elsewhere.
type rseq struct {
	address uintptr // of the field rseq_cs
	section uint64
}

const sectionOffset = 8 // of rseq_cs in struct rseq (linux/rseq.h)

func (t *Task) readRseq() (rseq, error) {
	var config struct { // struct ptrace_rseq_configuration
		Address   uint64
		Size      uint32
		Signature uint32
		Flags     uint32
		_         uint32
	}
	err := requestAt(unix.PTRACE_GET_RSEQ_CONFIGURATION, t.tid, unsafe.Sizeof(config), unsafe.Pointer(&config))
	if err == unix.ESRCH {
		return rseq{}, t.failed("read rseq", err)
	}
	if err != nil || config.Address == 0 { // none, or a kernel before 5.13
		return rseq{}, nil
	}
	r := rseq{address: uintptr(config.Address) + sectionOffset}
	var field [8]byte
	if err := t.Read(r.address, field[:]); err != nil {
		return rseq{}, err
	}
	r.section = binary.NativeEndian.Uint64(field[:])
	return r, nil
}

func (t *Task) writeRseq(r rseq) error {
	if r.section == 0 {
		return nil
	}
	var field [8]byte
	binary.NativeEndian.PutUint64(field[:], r.section)
	return t.Write(r.address, field[:])
}
