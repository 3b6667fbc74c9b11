package files

import (
	"errors"
	"fmt"

	"github.com/vzkit/vzkit/internal/fault"
	"golang.org/x/sys/unix"
)

// pathError says what could not be done to the entry at path. A full disk or
// quota is fault.NoSpace, everything else fault.Copy, unless err has a kind.
func pathError(op, path string, err error) error {
	var has *fault.Error
	if errors.As(err, &has) {
		return err
	}
	e := fault.New(fault.Copy, "%s %s: %w", op, quoted(path), err)
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		e.Kind = fault.NoSpace
		return e.WithHint("Free space or inodes on the file system, or raise the quota, and try again.")
	}
	return e
}

// quoted is a path for people: escaped, its end only if it is very long.
func quoted(path string) string {
	const shown = 512
	if len(path) <= shown {
		return fmt.Sprintf("%q", path)
	}
	return fmt.Sprintf("…%q", path[len(path)-shown:])
}

func hostile(format string, args ...any) error {
	return fault.New(fault.Protocol, format, args...)
}

// gone reports whether err says that a path no longer leads where it did: the
// name vanished or is of another type by now.
func gone(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP)
}
