package lifecycle

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// removeAll removes a tree that nobody uses, also what is immutable or
// append-only in it, which not even root may remove.
func removeAll(dir string) error {
	err := os.RemoveAll(dir)
	if !errors.Is(err, unix.EPERM) {
		return err
	}
	if err := filepath.WalkDir(dir, unseal); err != nil {
		return err
	}
	return os.RemoveAll(dir)
}

// unseal takes the flags off an entry that keep it from being removed; only
// files and directories have them.
func unseal(path string, d fs.DirEntry, err error) error {
	if err != nil || !(d.IsDir() || d.Type().IsRegular()) {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	const sealing = 0x10 | 0x20 // FS_IMMUTABLE_FL, FS_APPEND_FL of linux/fs.h
	flags, err := unix.IoctlGetInt(int(f.Fd()), unix.FS_IOC_GETFLAGS)
	if err != nil || flags&sealing == 0 { // a file system without flags has none to take off
		return nil
	}
	return unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, flags&^sealing)
}
