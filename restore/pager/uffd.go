package pager

import (
	"encoding/binary"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The interface of userfaultfd, from linux/userfaultfd.h.
const (
	ioNew      = 0xaa00     // USERFAULTFD_IOC_NEW, of /dev/userfaultfd
	ioAPI      = 0xc018aa3f // UFFDIO_API
	ioRegister = 0xc020aa00 // UFFDIO_REGISTER
	ioWake     = 0x8010aa02 // UFFDIO_WAKE
	ioCopy     = 0xc028aa03 // UFFDIO_COPY
	ioZero     = 0xc020aa04 // UFFDIO_ZEROPAGE

	apiVersion = 0xaa
	// events is what a process does to its mappings that the pager must hear
	// of: UFFD_FEATURE_EVENT_FORK, _REMAP, _REMOVE, _UNMAP.
	events      = 1<<1 | 1<<2 | 1<<3 | 1<<6
	modeMissing = 1 << 0

	eventFault  = 0x12
	eventFork   = 0x13
	eventRemap  = 0x14
	eventRemove = 0x15
	eventUnmap  = 0x16

	messageSize = 32
)

func ioctl(fd int, req uintptr, arg unsafe.Pointer) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), req, uintptr(arg))
	if errno != 0 {
		return errno
	}
	return nil
}

// begin agrees on the events.
func begin(fd int) error {
	arg := struct{ api, features, ioctls uint64 }{api: apiVersion, features: events}
	if err := ioctl(fd, ioAPI, unsafe.Pointer(&arg)); err != nil {
		return fmt.Errorf("begin userfaultfd: %w", err)
	}
	return nil
}

// register has faults in [start, end) reported where no page is.
func register(fd int, start, end uint64) error {
	arg := struct{ start, size, mode, ioctls uint64 }{start, end - start, modeMissing, 0}
	return ioctl(fd, ioRegister, unsafe.Pointer(&arg))
}

// wake has tasks that wait in [start, end) look again.
func wake(fd int, start, end uint64) error {
	arg := struct{ start, size uint64 }{start, end - start}
	return ioctl(fd, ioWake, unsafe.Pointer(&arg))
}

// copyIn puts pages where none are and wakes those who wait for them. It
// returns how many bytes it put, with an error also.
func copyIn(fd int, address uint64, data []byte) (uint64, error) {
	arg := struct {
		to, from, size, mode uint64
		done                 int64
	}{address, uint64(uintptr(unsafe.Pointer(unsafe.SliceData(data)))), uint64(len(data)), 0, 0}
	err := ioctl(fd, ioCopy, unsafe.Pointer(&arg))
	return uint64(max(arg.done, 0)), err
}

// zeroIn puts a zero page where none is.
func zeroIn(fd int, address uint64) error {
	arg := struct {
		start, size, mode uint64
		done              int64
	}{address, pageSize, 0, 0}
	return ioctl(fd, ioZero, unsafe.Pointer(&arg))
}

// message is a struct uffd_msg: an event and up to three values.
type message struct {
	event   uint8
	values  [3]uint64
	forkFD  int
	address uint64 // of a fault
}

func decode(b []byte) message {
	m := message{event: b[0], forkFD: int(int32(binary.NativeEndian.Uint32(b[8:])))}
	for n := range m.values {
		m.values[n] = binary.NativeEndian.Uint64(b[8+8*n:])
	}
	m.address = m.values[1] // after the flags
	return m
}
