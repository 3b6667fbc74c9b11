package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vzkit/vzkit/internal/fault"
)

// LoopMajor is the major number of loop devices.
const LoopMajor = 7

// releaseTime is how long a device whose last user has gone may take to let go
// of its file.
const releaseTime = 3 * time.Second

// open opens the image's file.
func (i Image) open() (*os.File, error) {
	f, err := os.OpenFile(i.Path(), os.O_RDWR|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, fault.New(fault.ImageMount, "open image: %w", err)
	}
	info, err := f.Stat()
	if err == nil && (!info.Mode().IsRegular() || info.Size() < MinSize) {
		err = fault.New(fault.ImageMount, "image %q of %d bytes is none", i.Path(), info.Size())
	}
	if err != nil {
		f.Close()
		return nil, fault.Wrap(fault.ImageMount, err)
	}
	return f, nil
}

// claim locks the image's file, so that nobody makes a device of it.
func claim(f *os.File) (bool, error) {
	err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return false, nil
	}
	return err == nil, err
}

// idle tells whether nobody uses the image.
func (i Image) idle() (bool, error) {
	f, err := i.open()
	if err != nil {
		return false, err
	}
	defer f.Close()
	return claim(f)
}

// own waits until nobody uses the image any more, and gives its claimed file.
func (i Image) own(ctx context.Context) (*os.File, error) {
	f, err := i.open()
	if err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(releaseTime); ; time.Sleep(20 * time.Millisecond) {
		ours, err := claim(f)
		if ours {
			return f, nil
		}
		if err != nil || ctx.Err() != nil || time.Now().After(deadline) {
			f.Close()
			return nil, i.busy(err)
		}
	}
}

func (i Image) busy(err error) error {
	if err != nil {
		return fault.New(fault.ImageMount, "lock image %q: %w", i.Path(), err)
	}
	return fault.New(fault.ImageMount, "image %q is in use elsewhere", i.Path()).
		WithHint("fuser -v %s shows by whom.", i.Path())
}

// device gives the image's loop device, which stays as long as the file is open
// or something is mounted from it. If there is none yet, the file system is
// checked and one is configured.
func (i Image) device(ctx context.Context) (*os.File, error) {
	f, err := i.open()
	if err != nil {
		return nil, err
	}
	defer f.Close()
	for deadline := time.Now().Add(releaseTime); ; time.Sleep(20 * time.Millisecond) {
		ours, err := claim(f)
		if err != nil {
			return nil, i.busy(err)
		}
		if ours {
			if err := i.check(ctx, f); err != nil {
				return nil, err
			}
			return i.configure(f)
		}
		dev, err := find(f)
		if err != nil || dev != nil {
			return dev, err
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			return nil, i.busy(nil)
		}
	}
}

// configure makes a free loop device the image's. The device takes over the
// lock with the open file.
func (i Image) configure(f *os.File) (*os.File, error) {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, noLoop(err)
	}
	defer control.Close()
	c := unix.LoopConfig{Fd: uint32(f.Fd()), Size: blockSize}
	c.Info.Flags = unix.LO_FLAGS_AUTOCLEAR | unix.LO_FLAGS_DIRECT_IO
	copy(c.Info.File_name[:len(c.Info.File_name)-1], i.Label)
	for range 64 { // others take free devices, too
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, noLoop(err)
		}
		dev, err := os.OpenFile(node(uint32(n)), os.O_RDWR, 0)
		if err != nil {
			return nil, noLoop(err)
		}
		err = unix.IoctlLoopConfigure(int(dev.Fd()), &c)
		if err == nil {
			return dev, nil
		}
		dev.Close()
		if !errors.Is(err, unix.EBUSY) {
			return nil, fault.New(fault.ImageMount, "put image %q on %s: %w", i.Path(), dev.Name(), err)
		}
	}
	return nil, noLoop(unix.EBUSY)
}

func node(n uint32) string { return fmt.Sprintf("/dev/loop%d", n) }

func noLoop(err error) error {
	return fault.New(fault.NoImages, "get a loop device: %w", err).
		WithHint("Containers with --layout image need them: modprobe loop, and /dev/loop-control.")
}

// find returns the device that has this file, or nil.
func find(f *os.File) (*os.File, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, err
	}
	bound, err := filepath.Glob("/sys/block/loop*/loop")
	if err != nil {
		return nil, err
	}
	for _, dir := range bound {
		// Opening other people's devices would show in their events.
		if name, err := os.ReadFile(filepath.Join(dir, "backing_file")); err != nil || !bytes.Contains(name, []byte("/"+File)) {
			continue
		}
		name := filepath.Base(filepath.Dir(dir))
		dev, err := os.OpenFile(filepath.Join("/dev", name), os.O_RDWR, 0)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENXIO) || errors.Is(err, unix.EBUSY) {
			continue
		}
		if err != nil {
			return nil, noLoop(err)
		}
		info, err := unix.IoctlLoopGetStatus64(int(dev.Fd()))
		if err == nil && info.Device == st.Dev && info.Inode == st.Ino {
			return dev, nil
		}
		dev.Close()
	}
	return nil, nil
}

// LabelOf is the label of the image on loop device n, or "" if it has none.
func LabelOf(n int) string {
	if _, err := os.Stat("/sys/block/loop" + strconv.Itoa(n) + "/loop"); err != nil {
		return "" // opening a free device is not free of side effects
	}
	dev, err := os.Open(node(uint32(n)))
	if err != nil {
		return ""
	}
	defer dev.Close()
	info, err := unix.IoctlLoopGetStatus64(int(dev.Fd()))
	if err != nil {
		return ""
	}
	label, _, _ := bytes.Cut(info.File_name[:], []byte{0})
	return string(label)
}
