package files

import (
	"errors"
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

	inherited = flagSync | flagNoAtime | flagNoDump // by what is made in a directory
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
	if err := x.ioctl(fd, getXattr); err != nil && !unsupported(err) {
		return 0, 0, err
	}
	return x.flags & carriedFlags, x.project, nil
}

// writeFlags sets those of the mask, and the project identifier, if they are
// others.
func writeFlags(fd int, mask, flags, project uint32) error {
	var x fsxattr
	if err := x.ioctl(fd, getXattr); err != nil {
		if unsupported(err) && flags == 0 && project == 0 {
			return nil
		}
		return err
	}
	want := x
	want.flags = x.flags&^mask | flags
	want.project = project
	if want == x {
		return nil
	}
	return want.ioctl(fd, setXattr)
}

// across does what moves or links an entry into the directory. A directory that
// hands its project identifier down takes nothing of another project (EXDEV):
// it stops to hand it down for that long.
func across(dir int, do func() error) error {
	err := do()
	if !errors.Is(err, unix.EXDEV) {
		return err
	}
	flags, project, readErr := readFlags(dir)
	if readErr != nil || flags&flagProjInherit == 0 {
		return err
	}
	if err := writeFlags(dir, carriedFlags, flags&^flagProjInherit, project); err != nil {
		return err
	}
	return errors.Join(do(), writeFlags(dir, carriedFlags, flags, project))
}

// unsupported reports whether err says that a file system has no such thing.
func unsupported(err error) bool {
	return errors.Is(err, unix.ENOTTY) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS)
}

func (x *fsxattr) ioctl(fd int, request uintptr) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(unsafe.Pointer(x)))
	if errno != 0 {
		return errno
	}
	return nil
}
