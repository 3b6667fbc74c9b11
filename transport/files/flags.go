package files

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Inode flags, FS_XFLAG_* (Linux include/uapi/linux/fs.h).
const (
	flagImmutable   = 0x8
	flagAppend      = 0x10
	flagSync        = 0x20
	flagNoAtime     = 0x40
	flagNoDump      = 0x80
	flagProjInherit = 0x200

	carriedFlags = flagImmutable | flagAppend | flagSync | flagNoAtime | flagNoDump | flagProjInherit
	sealing      = flagImmutable | flagAppend // no more changes
)

const (
	getXattr = 0x801c581f // FS_IOC_FSGETXATTR
	setXattr = 0x401c5820 // FS_IOC_FSSETXATTR
)

// fsxattr is struct fsxattr.
type fsxattr struct {
	flags, extsize, nextents, project, cowextsize uint32
	_                                             [8]byte
}

// readFlags returns the inode flags that are carried, and the project
// identifier, of an open file or directory: none on a file system without them.
func readFlags(fd int) (flags, project uint32, err error) {
	var x fsxattr
	if err := x.ioctl(fd, getXattr); err != nil || x == (fsxattr{}) {
		return 0, 0, err
	}
	return x.flags & carriedFlags, x.project, nil
}

// ioctl leaves x empty where the file system has no such thing.
func (x *fsxattr) ioctl(fd int, request uintptr) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(unsafe.Pointer(x)))
	if errno == unix.ENOTTY || errno == unix.EOPNOTSUPP || errno == unix.ENOSYS {
		return nil
	}
	if errno != 0 {
		return errno
	}
	return nil
}
