package watch

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

const (
	// reported makes an event name the directory, the entry and, for what is
	// no directory, the object itself. Linux 5.9 has all three.
	reported = unix.FAN_REPORT_DIR_FID | unix.FAN_REPORT_NAME | unix.FAN_REPORT_FID

	// interest is what changes a tree. Close-write is there for writes that
	// raise no event of their own: through a mapping, or by io_submit(2).
	// Move-self names the inode, whose ctime all its links show.
	interest = unix.FAN_MODIFY | unix.FAN_CLOSE_WRITE | unix.FAN_ATTRIB | unix.FAN_CREATE | unix.FAN_DELETE |
		unix.FAN_MOVED_FROM | unix.FAN_MOVED_TO | unix.FAN_MOVE_SELF | unix.FAN_ONDIR
)

// openGroup returns the descriptor of a new fanotify group that is told of
// changes in the whole file system of root.
func openGroup(root *os.File, queue uint) (int, error) {
	fd, err := unix.FanotifyInit(unix.FAN_CLASS_NOTIF|unix.FAN_CLOEXEC|unix.FAN_NONBLOCK|reported|queue, 0)
	if err != nil {
		return -1, initError(err)
	}
	// The empty path would need a descriptor that is not O_PATH.
	err = unix.FanotifyMark(fd, unix.FAN_MARK_ADD|unix.FAN_MARK_FILESYSTEM, interest, int(root.Fd()), ".")
	if err != nil {
		unix.Close(fd)
		return -1, markError(root, err)
	}
	return fd, nil
}

func initError(err error) error {
	switch {
	case errors.Is(err, unix.ENOSYS):
		return fmt.Errorf("fanotify: kernel has none: %w", err)
	case errors.Is(err, unix.EINVAL):
		return fmt.Errorf("fanotify: kernel cannot report names (needs 5.9): %w", err)
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("fanotify: needs CAP_SYS_ADMIN: %w", err)
	}
	return fmt.Errorf("fanotify: %w", err)
}

func markError(root *os.File, err error) error {
	switch {
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("watch file system of %q: needs CAP_SYS_ADMIN on the host: %w", root.Name(), err)
	case errors.Is(err, unix.ENODEV):
		return fmt.Errorf("watch file system of %q: it has no fsid: %w", root.Name(), err)
	case errors.Is(err, unix.EXDEV):
		return fmt.Errorf("watch file system of %q: subvolume with an fsid of its own: %w", root.Name(), err)
	case errors.Is(err, unix.EOPNOTSUPP):
		return fmt.Errorf("watch file system of %q: it has no file handles: %w", root.Name(), err)
	}
	return fmt.Errorf("watch file system of %q: %w", root.Name(), err)
}
