package image

import (
	"context"
	"errors"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/vzkit/vzkit/internal/fault"
)

// Volume is an image as whoever moves it sees it.
type Volume struct {
	File *os.File // to be read, past the page cache where its device writes past it

	// Major and Minor are the loop device's; 0 if the image is claimed.
	Major, Minor uint32
}

// InUse gives the volume of an image that is mounted and stays so.
func (i Image) InUse() (*Volume, error) {
	f, err := i.open()
	if err != nil {
		return nil, err
	}
	defer f.Close()
	dev, err := find(f)
	if err == nil && dev == nil {
		err = fault.New(fault.ImageMount, "image %q is not in use", i.Path())
	}
	if err != nil {
		return nil, err
	}
	defer dev.Close()
	var st unix.Stat_t
	info, err := unix.IoctlLoopGetStatus64(int(dev.Fd()))
	if err == nil {
		err = unix.Fstat(int(dev.Fd()), &st)
	}
	if err != nil {
		return nil, fault.New(fault.ImageMount, "look at device of image %q: %w", i.Path(), err)
	}
	flags := unix.O_RDONLY | unix.O_NOFOLLOW
	if info.Flags&unix.LO_FLAGS_DIRECT_IO != 0 {
		flags |= unix.O_DIRECT
	}
	v := &Volume{Major: unix.Major(st.Rdev), Minor: unix.Minor(st.Rdev)}
	if v.File, err = os.OpenFile(i.Path(), flags, 0); err != nil {
		return nil, fault.New(fault.ImageMount, "open image: %w", err)
	}
	return v, nil
}

// Claim waits until nobody uses the image, and keeps it so until the volume's
// file is closed.
func (i Image) Claim(ctx context.Context) (*Volume, error) {
	f, err := i.own(ctx)
	if err != nil {
		return nil, err
	}
	return &Volume{File: f}, nil
}

// Settle brings to the image's device what its file system, of which dir is a
// directory, holds back; with empty, the journal is emptied, too, so that
// whoever mounts the image as it is has less to replay. Kernels before 5.14
// leave that be. Writers wait meanwhile, and go on even if this process is
// killed.
func Settle(dir *os.File, empty bool) error {
	if err := unix.Syncfs(int(dir.Fd())); err != nil || !empty {
		return err
	}
	var flags uint32
	err := ioctl(dir, settleFS, unsafe.Pointer(&flags))
	if errors.Is(err, unix.ENOTTY) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil
	}
	return err
}
