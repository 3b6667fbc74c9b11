package watch

import (
	"os"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Of linux/io_uring.h.
const (
	sysUringSetup = 425
	sysUringEnter = 426
	opWrite       = 23
	getEvents     = 1
	offSQRing     = 0
	offSQEs       = 0x10000000
)

type uringParams struct {
	sqEntries, cqEntries, flags, cpu, idle, features, wq uint32
	_                                                    [3]uint32
	sq                                                   struct{ head, tail, mask, entries, flags, dropped, array, _, _, _ uint32 }
	cq                                                   struct{ head, tail, mask, entries, overflow, cqes, flags, _, _, _ uint32 }
}

type sqe struct {
	opcode, flags uint8
	prio          uint16
	fd            int32
	offset        uint64
	addr          unsafe.Pointer
	len           uint32
	_             [36]byte
}

// uringWrite writes with io_uring and waits until that is done.
func uringWrite(t *testing.T, f *os.File) {
	var p uringParams
	ring, _, e := unix.Syscall(sysUringSetup, 1, uintptr(unsafe.Pointer(&p)), 0)
	if e == unix.ENOSYS || e == unix.EPERM {
		t.Skipf("io_uring: %v", e)
	}
	okErrno(t, e)
	defer unix.Close(int(ring))
	size := max(p.sq.array+4*p.sqEntries, p.cq.cqes+16*p.cqEntries)
	rings, err := unix.Mmap(int(ring), offSQRing, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	ok(t, err)
	defer unix.Munmap(rings)
	sqes, err := unix.Mmap(int(ring), offSQEs, int(p.sqEntries)*64, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	ok(t, err)
	defer unix.Munmap(sqes)

	data := []byte("ring")
	*(*sqe)(unsafe.Pointer(&sqes[0])) = sqe{opcode: opWrite, fd: int32(f.Fd()), addr: unsafe.Pointer(&data[0]), len: 4}
	*(*uint32)(unsafe.Pointer(&rings[p.sq.tail])) = 1
	_, _, e = unix.Syscall6(sysUringEnter, ring, 1, 1, getEvents, 0, 0)
	okErrno(t, e)
	if res := *(*int32)(unsafe.Pointer(&rings[p.cq.cqes+8])); res != 4 {
		t.Fatalf("io_uring write: result %d", res)
	}
}
