package hosts

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// ownMounts is in the environment of a program that OwnMounts has started
// again. It holds the process's number: others may inherit it.
const ownMounts = "VZBENCH_OWN_MOUNTS"

// OwnMounts puts the program in a mount namespace of its own, so that the file
// systems that it mounts for its hosts are seen by nobody else, are held by
// nobody else, and go with the last of the hosts, even if the program is
// killed. A namespace is a thread's at first, so the program starts again from
// the beginning: call this before anything has an effect.
func OwnMounts() error {
	self := strconv.Itoa(os.Getpid())
	if os.Getenv(ownMounts) == self {
		return os.Unsetenv(ownMounts)
	}
	runtime.LockOSThread() // for good: the next program is of this thread
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("unshare mount namespace: %w", err)
	}
	// In a chroot there is nothing to make private. What is mounted may show on
	// the machine then; it is unmounted there, too.
	err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
	if err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := os.Setenv(ownMounts, self); err != nil {
		return err
	}
	return fmt.Errorf("start again: %w", syscall.Exec("/proc/self/exe", os.Args, os.Environ()))
}
