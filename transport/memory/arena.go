package memory

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// arena is memory outside the heap: the tables are most of what a sender holds,
// and on the heap the collector would let garbage grow to the same size again.
// It takes memory only where it is touched.
type arena[T any] struct {
	all []T
	raw []byte
}

// allocate returns n zero values of T, a type without pointers. If the kernel
// refuses, there are none: the tables only save bytes, and do without.
func allocate[T any](n int) arena[T] {
	var zero T
	raw, err := unix.Mmap(-1, 0, n*int(unsafe.Sizeof(zero)),
		unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return arena[T]{}
	}
	return arena[T]{unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(raw))), n), raw}
}

// free gives the memory back. Freeing twice is fine.
func (a *arena[T]) free() {
	if a.raw != nil {
		unix.Munmap(a.raw) // cannot fail for a mapping of ours
	}
	*a = arena[T]{}
}
