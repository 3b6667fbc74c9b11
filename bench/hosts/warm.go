package hosts

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/vzkit/vzkit/internal/procfs"
)

// Warm takes so many bytes of memory, at most half of what there is, and frees
// them again. The host of a virtual machine may take back memory that is free
// (virtio_balloon, "free page reporting"), and then the first use of a page costs
// some 10 µs: whoever goes first would pay that.
func Warm(bytes uint64) error {
	available, err := procfs.Available()
	if err != nil {
		return err
	}
	size := int(min(bytes, available/2)) //nolint:gosec // a part of the memory
	b, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_POPULATE)
	if err != nil {
		return fmt.Errorf("take %d bytes of memory: %w", size, err)
	}
	return unix.Munmap(b)
}
