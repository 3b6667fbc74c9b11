package treecheck

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Inode flags that survive a move, FS_XFLAG_*.
const (
	flagImmutable   = 0x8
	flagAppend      = 0x10
	flagSync        = 0x20
	flagNoAtime     = 0x40
	flagNoDump      = 0x80
	flagProjInherit = 0x200

	seals    = flagImmutable | flagAppend
	allFlags = seals | flagSync | flagNoAtime | flagNoDump | flagProjInherit
)

var flagNames = []struct {
	flag uint32
	name string
}{
	{flagImmutable, "immutable"}, {flagAppend, "append"}, {flagSync, "sync"},
	{flagNoAtime, "noatime"}, {flagNoDump, "nodump"}, {flagProjInherit, "projinherit"},
}

const (
	fsGetXattr = 0x801c581f // FS_IOC_FSGETXATTR
	fsSetXattr = 0x401c5820 // FS_IOC_FSSETXATTR
)

// fsxattr is struct fsxattr of linux/fs.h.
type fsxattr struct {
	flags, extsize, nextents, project, cowextsize uint32
	_                                             [8]byte
}

func (x *fsxattr) ioctl(fd int, request uintptr) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(unsafe.Pointer(x)))
	if errno != 0 {
		return os.NewSyscallError("ioctl", errno)
	}
	return nil
}

// unsupported reports whether a file system has no such thing.
func unsupported(err error) bool {
	return errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOTTY) || errors.Is(err, unix.ENOSYS)
}

func readFlags(fd int) (flags, project uint32, err error) {
	var x fsxattr
	if err := x.ioctl(fd, fsGetXattr); err != nil && !unsupported(err) {
		return 0, 0, err
	}
	return x.flags & allFlags, x.project, nil
}

// changeFlags sets and clears flags of an open file or directory.
func changeFlags(fd int, set, clear uint32) error {
	var x fsxattr
	if err := x.ioctl(fd, fsGetXattr); err != nil {
		return err
	}
	next := x.flags&^clear | set
	if next == x.flags {
		return nil
	}
	x.flags = next
	return x.ioctl(fd, fsSetXattr)
}

// Unseal clears the flags immutable and append-only in the tree at root, so
// that it can be removed. A file system without flags needs none of it.
func Unseal(root string) error {
	fd, err := unix.Open(root, dirFlags, 0)
	if err != nil {
		return &os.PathError{Op: "open directory", Path: root, Err: err}
	}
	return walk(fd, func(dir int, name, _ string, st *unix.Stat_t) error {
		if !isDir(st) && !isRegular(st) {
			return nil
		}
		err := withFile(dir, name, unix.O_RDONLY, func(fd int) error { return changeFlags(fd, 0, seals) })
		if unsupported(err) {
			return nil
		}
		return err
	})
}

// kept reports whether an attribute is the file's own rather than a view that
// its file system gives (xattr(7)).
func kept(name string) bool {
	class, _, _ := strings.Cut(name, ".")
	return class == "user" || class == "trusted" || class == "security" ||
		strings.HasPrefix(name, "system.posix_acl_")
}

func readXattrs(path string) (map[string]string, error) {
	buf := make([]byte, 64<<10) // XATTR_LIST_MAX and XATTR_SIZE_MAX
	n, err := unix.Llistxattr(path, buf)
	if n == 0 || unsupported(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list attributes: %w", err)
	}
	xs := map[string]string{}
	for _, name := range strings.Split(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00") {
		if !kept(name) {
			continue
		}
		n, err := unix.Lgetxattr(path, name, buf)
		if err != nil {
			return nil, fmt.Errorf("attribute %q: %w", name, err)
		}
		xs[name] = string(buf[:n])
	}
	return xs, nil
}
