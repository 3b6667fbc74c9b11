package image

import (
	"context"
	"errors"
	"os"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/vzkit/vzkit/internal/fault"
)

// Numbers that package unix does not have: linux/fs.h, ext4.h.
const (
	fitrim   = 0xc0185879 // _IOWR('X', 121, struct fstrim_range)
	resizeFS = 0x40086610 // _IOW('f', 16, __u64)
	settleFS = 0x4004662b // EXT4_IOC_CHECKPOINT, _IOW('f', 43, __u32)
)

// state is what Resize has to know: the file's size, the balloon's, and what is
// free beside it.
type state struct{ size, balloon, free int64 }

func (i Image) look(top *os.File) (s state, err error) {
	info, err := os.Stat(i.Path())
	if err != nil {
		return s, err
	}
	s.size = info.Size()
	var st unix.Stat_t
	err = unix.Fstatat(int(top.Fd()), balloonFile, &st, unix.AT_SYMLINK_NOFOLLOW)
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return s, err
	}
	if err == nil {
		s.balloon = st.Size
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(top.Fd()), &fs); err != nil {
		return s, err
	}
	s.free = int64(fs.Bavail) * fs.Bsize
	return s, nil
}

// Resize gives the container size bytes. Less than what it uses is refused
// before anything changes. An image that is in use becomes smaller by a balloon,
// and larger as it is, for which ext4 wants CAP_SYS_RESOURCE; the file of one
// that is not has that size afterwards.
func (i Image) Resize(ctx context.Context, size int64) error {
	if size < MinSize || size > MaxSize {
		return fault.New(fault.BadValue, "size %d of an image is not in %d..%d bytes", size, int64(MinSize), int64(MaxSize))
	}
	size = round(size)
	idle, err := i.idle()
	if err != nil {
		return err
	}
	var before state
	err = i.within(ctx, func(top *os.File) (err error) {
		if before, err = i.look(top); err != nil {
			return err
		}
		if used := before.size - before.balloon - before.free; size < used {
			return fault.New(fault.ImageResize, "container uses %s, more than %s", human(used), human(size)).
				WithHint("Delete files in it first, or choose a larger size.")
		}
		if idle {
			return i.inflate(top, 0)
		}
		return i.resizeInUse(ctx, top, before.size, size)
	})
	if err == nil && idle && size != before.size {
		err = i.resizeIdle(ctx, before.size, size)
	}
	return fault.Wrap(fault.ImageResize, err)
}

func (i Image) resizeInUse(ctx context.Context, top *os.File, before, size int64) error {
	if size <= before {
		return i.inflate(top, before-size)
	}
	if !capable() {
		return fault.New(fault.ImageResize, "grow a file system in use: needs CAP_SYS_RESOURCE, which root lacks here").
			WithHint("Stop and unmount the container first, or run it where root has all capabilities.")
	}
	if err := i.inflate(top, 0); err != nil {
		return err
	}
	return i.grow(ctx, top, size)
}

// capable tells whether ext4 lets this process grow a mounted file system.
func capable() bool {
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	err := unix.Capget(&head, &sets[0])
	return err == nil && sets[0].Effective&(1<<unix.CAP_SYS_RESOURCE) != 0
}

// inflate makes the balloon n bytes large; not more than 0 is none. What it
// takes is first given back to the host.
func (i Image) inflate(top *os.File, n int64) error {
	if n <= 0 {
		err := unix.Unlinkat(int(top.Fd()), balloonFile, 0)
		if errors.Is(err, unix.ENOENT) {
			return nil
		}
		return err
	}
	fd, err := unix.Openat(int(top.Fd()), balloonFile, unix.O_RDWR|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fault.New(fault.ImageResize, "open balloon: %w", err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if n <= st.Size {
		return unix.Ftruncate(fd, n)
	}
	if err := trim(top); err != nil {
		return err
	}
	if err := unix.Fallocate(fd, 0, st.Size, n-st.Size); err != nil {
		err = fault.New(fault.ImageResize, "inflate balloon to %s: %w", human(n), err)
		return errors.Join(err, unix.Ftruncate(fd, st.Size))
	}
	return unix.Fsync(fd)
}

// grow makes the file, its device and the file system larger, mounted as it is.
func (i Image) grow(ctx context.Context, top *os.File, size int64) error {
	if err := os.Truncate(i.Path(), size); err != nil {
		return fault.New(fault.ImageResize, "set size of image %q: %w", i.Path(), err)
	}
	dev, err := i.device(ctx)
	if err != nil {
		return err
	}
	defer dev.Close()
	if err := unix.IoctlSetInt(int(dev.Fd()), unix.LOOP_SET_CAPACITY, 0); err != nil {
		return fault.New(fault.ImageResize, "resize device of image %q: %w", i.Path(), err)
	}
	blocks := uint64(size / blockSize)
	if err := ioctl(top, resizeFS, unsafe.Pointer(&blocks)); err != nil {
		return fault.New(fault.ImageResize, "grow file system of image %q: %w", i.Path(), err)
	}
	return nil
}

// resizeIdle changes the size of a file system that nobody uses, and of its
// file. One that cannot become so small, by resize2fs's own estimate, which is
// on the safe side, gets a balloon.
func (i Image) resizeIdle(ctx context.Context, before, size int64) error {
	err := i.rebuild(ctx, before, size)
	if err != nil && size < before && ctx.Err() == nil {
		return i.within(ctx, func(top *os.File) error { return i.inflate(top, before-size) })
	}
	return err
}

func (i Image) rebuild(ctx context.Context, before, size int64) error {
	f, err := i.own(ctx)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := i.fsck(ctx, f, "-f", "-p"); err != nil {
		return err
	}
	if size > before {
		if err := f.Truncate(size); err != nil {
			return fault.New(fault.ImageResize, "set size of image %q: %w", i.Path(), err)
		}
	}
	if _, err := run(ctx, fault.ImageResize, f, "resize2fs", i.Path(), strconv.FormatInt(size/blockSize, 10)); err != nil {
		return errors.Join(err, f.Truncate(before))
	}
	return errors.Join(f.Truncate(size), f.Sync())
}

// Compact gives the host back what the container has deleted, and returns how
// many bytes that were.
func (i Image) Compact(ctx context.Context) (int64, error) {
	before, err := i.onDisk()
	if err != nil {
		return 0, fault.Wrap(fault.Compact, err)
	}
	if err := i.within(ctx, trim); err != nil {
		return 0, fault.Wrap(fault.Compact, err)
	}
	after, err := i.onDisk()
	return max(0, before-after), fault.Wrap(fault.Compact, err)
}

// trim makes holes in the image where the file system has nothing. What was
// deleted just now is free only when that is on the disk.
func trim(top *os.File) error {
	if err := unix.Syncfs(int(top.Fd())); err != nil {
		return fault.New(fault.Compact, "sync image: %w", err)
	}
	all := struct{ start, len, minlen uint64 }{len: 1<<64 - 1}
	if err := ioctl(top, fitrim, unsafe.Pointer(&all)); err != nil {
		return fault.New(fault.Compact, "trim image: %w", err).
			WithHint("The file system below the image cannot punch holes into files.")
	}
	return nil
}

// onDisk is how much the image takes of the host's disk.
func (i Image) onDisk() (int64, error) {
	var st unix.Stat_t
	f, err := os.Open(i.Path())
	if err != nil {
		return 0, err
	}
	defer f.Close()
	err = errors.Join(unix.Fdatasync(int(f.Fd())), unix.Fstat(int(f.Fd()), &st))
	return st.Blocks * 512, err
}

func ioctl(f *os.File, number uint, arg unsafe.Pointer) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), uintptr(number), uintptr(arg)); errno != 0 {
		return errno
	}
	return nil
}
