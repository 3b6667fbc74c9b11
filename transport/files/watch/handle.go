package watch

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// A layout finds the inode number in a file handle of one file system; false
// means that this is no handle of it.
type layout func(kind int32, handle []byte) (inode uint64, ok bool)

// Types of file handles, include/linux/exportfs.h and fs/xfs/xfs_export.h.
const (
	ino32Gen       = 1
	ino32GenParent = 2
	xfs64          = 0x80 // flag: 64-bit inode numbers
)

// layouts are the file systems whose handles carry the inode number in a known
// place, by magic number. ext2, ext3 and ext4 share one.
var layouts = map[int64]layout{
	unix.EXT4_SUPER_MAGIC: ext4Inode,
	unix.XFS_SUPER_MAGIC:  xfsInode,
}

// ext4Inode reads {ino u32, gen u32}; a handle with a parent has two more.
func ext4Inode(kind int32, h []byte) (uint64, bool) {
	if (kind != ino32Gen || len(h) != 8) && (kind != ino32GenParent || len(h) != 16) {
		return 0, false
	}
	return uint64(binary.NativeEndian.Uint32(h)), true
}

// xfsInode reads what ext4Inode does, or the same with inode numbers of 64 bits.
func xfsInode(kind int32, h []byte) (uint64, bool) {
	if kind != xfs64|ino32Gen && kind != xfs64|ino32GenParent {
		return ext4Inode(kind, h)
	}
	if len(h) < 12 {
		return 0, false
	}
	return binary.NativeEndian.Uint64(h), true
}

// layoutOf returns the layout of the handles of root's file system, and makes
// sure of it with root's own handle.
func layoutOf(root *os.File) (layout, error) {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(root.Fd()), &fs); err != nil {
		return nil, fmt.Errorf("statfs %q: %w", root.Name(), err)
	}
	inode, ok := layouts[int64(fs.Type)]
	if !ok {
		return nil, fmt.Errorf("watch file system of %q: file handles of file systems of type %#x (statfs(2)) are not known: %w",
			root.Name(), fs.Type, errors.ErrUnsupported)
	}
	return inode, proveLayout(root, inode)
}

func proveLayout(root *os.File, inode layout) error {
	h, _, err := unix.NameToHandleAt(int(root.Fd()), "", unix.AT_EMPTY_PATH)
	if err != nil {
		return fmt.Errorf("file handle of %q: %w", root.Name(), err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(root.Fd()), &st); err != nil {
		return fmt.Errorf("stat %q: %w", root.Name(), err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return fmt.Errorf("watch %q: %w", root.Name(), unix.ENOTDIR)
	}
	if got, ok := inode(h.Type(), h.Bytes()); !ok || got != st.Ino {
		return fmt.Errorf("file handle of %q: type %#x does not show inode %d: %w",
			root.Name(), h.Type(), st.Ino, errors.ErrUnsupported)
	}
	return nil
}
