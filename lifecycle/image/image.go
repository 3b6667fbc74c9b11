// Package image keeps a container's files in a file system of their own: an
// ext4 in a sparse file, on a loop device while it is in use. It is OpenVZ's
// ploop made of what every kernel has.
//
// A private area of this kind is a directory, root's alone, with
//
//	root.img   the file system
//	root       a place to mount it on, there only while it is used
//
// The file system has two entries beside its lost+found, and what is mounted
// for anybody is the first of them, never the top:
//
//	root       the container's files
//	balloon    blocks that the container may not have, allocated and unwritten
//
// The balloon is what makes a file system smaller while it is mounted, which
// ext4 cannot: it takes what is too much. Its space is not used in root.img
// either. Once the image is not in use, resize2fs(8) does it really.
//
// # One file system, one device
//
// Whoever configures a loop device has an exclusive flock(2) on root.img, and
// the device keeps it with the open file until it is cleared. So an image has
// one device at most, whoever uses it: who finds it locked looks for the device
// and mounts that, which gives the same file system once more. Devices clear
// themselves with their last user (LO_FLAGS_AUTOCLEAR): a process that is
// killed leaves none. Input and output go around the page cache where the file
// system below allows it (LO_FLAGS_DIRECT_IO).
//
// Errors: fault.ImageCreate, ImageMount, ImageResize, Compact, NoImages where
// loop devices or e2fsprogs are missing, NoSpace.
//
// Sources: loop(4), ext4(5), mke2fs(8), ioctl_fitrim(2).
package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/internal/undo"
)

const (
	// File is the image in its private area, Point the directory in it that it
	// may be mounted on.
	File  = "root.img"
	Point = "root"

	filesDir    = "root"    // in the image: the container's files
	balloonFile = "balloon" // in the image

	// MinSize is the least size of an image, in bytes; MaxSize is what a file
	// of a 4 KiB ext4 can have.
	MinSize = 32 << 20
	MaxSize = 16<<40 - blockSize

	blockSize  = 4096
	inodeBytes = 16384 // of the image, for each inode, unless more are needed

	reservedInodes = 16 // ext4's own, and this package's
)

// Image is the image in one private area.
type Image struct {
	Dir   string // the private area
	Label string // whose it is; the loop device bears it, at most 63 bytes

	// Unchecked has it mounted without e2fsck(8), which would only replay the
	// journal, as the kernel does: it comes from where it was mounted and well.
	Unchecked bool
}

// Path is the file with the file system.
func (i Image) Path() string { return filepath.Join(i.Dir, File) }

// Exists tells whether there is an image, and refuses anything else in its
// place.
func (i Image) Exists() (bool, error) {
	info, err := os.Lstat(i.Path())
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err == nil && !info.Mode().IsRegular() {
		err = fault.New(fault.ImageMount, "image %q is no regular file", i.Path())
	}
	return err == nil, err
}

// Make makes an image of so many bytes with room for at least that many files,
// in a directory that has none. Nothing of it is left if that fails.
func (i Image) Make(ctx context.Context, size int64, inodes uint64) error {
	if size < MinSize || size > MaxSize {
		return fault.New(fault.BadValue, "size %d of an image is not in %d..%d bytes", size, int64(MinSize), int64(MaxSize))
	}
	var u undo.Stack
	defer u.Run()
	f, err := os.OpenFile(i.Path(), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fault.New(fault.ImageCreate, "create image: %w", err)
	}
	u.Push("remove "+i.Path(), func() error { return os.Remove(i.Path()) })
	err = f.Truncate(round(size))
	if err = errors.Join(err, f.Close()); err != nil {
		return fault.New(fault.ImageCreate, "set size of image %q: %w", i.Path(), err).
			WithHint("The file system below may not take files of %d bytes.", size)
	}
	if err := i.format(ctx, size, inodes); err != nil {
		return err
	}
	err = i.within(ctx, func(top *os.File) error { return unix.Mkdirat(int(top.Fd()), filesDir, 0o700) })
	if err != nil {
		return fault.Wrap(fault.ImageCreate, err)
	}
	u.Keep()
	return nil
}

// format runs mke2fs. The file is new and reads as zeros, so nothing has to be
// written to have it so: inode tables and journal stay holes, and the kernel
// has no table to initialize later. No quota or project feature, which kernels
// without quota refuse to mount.
func (i Image) format(ctx context.Context, size int64, inodes uint64) error {
	inodes = max(inodes+reservedInodes, uint64(size)/inodeBytes)
	_, err := run(ctx, fault.ImageCreate, nil, "mke2fs", "-q", "-F", "-t", "ext4", "-b", strconv.Itoa(blockSize), "-I", "256",
		"-N", strconv.FormatUint(inodes, 10), "-m", "0", "-e", "remount-ro", "-O", "^quota,^project",
		"-E", "discard,lazy_itable_init=0,lazy_journal_init=1,root_owner=0:0", i.Path())
	return err
}

// round is size in whole blocks.
func round(size int64) int64 { return size / blockSize * blockSize }

// Fits refuses a tree of so many bytes and inodes for an image of that size.
// What the file system itself needs is an estimate on the safe side.
func Fits(size int64, bytes, inodes uint64) error {
	n := max(inodes, uint64(size)/inodeBytes)
	if need := bytes + n*256 + uint64(size)/32 + 8<<20; need > uint64(size) {
		return fault.New(fault.NoSpace, "image of %s is too small for %s in %d files", human(size), human(int64(bytes)), inodes).
			WithHint("Give a larger --diskspace; %s would do.", human(int64(need+need/10)))
	}
	return nil
}

// human is a number of bytes for people.
func human(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }
