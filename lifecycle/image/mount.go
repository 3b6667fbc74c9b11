package image

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/vzkit/vzkit/internal/fault"
)

// hidden are the attributes of mounts that are for looking after the files, not
// for running them.
const hidden = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC

// Mount mounts the container's files at dir, with no part of the rest of the
// image in sight. The mount is private.
func (i Image) Mount(ctx context.Context, dir string) error { return i.mount(ctx, dir, 0) }

// Attach mounts the container's files at the image's own place, Point, for
// somebody who reads and writes them but does not run them. Detach takes that
// away.
func (i Image) Attach(ctx context.Context) (dir string, err error) {
	dir = filepath.Join(i.Dir, Point)
	if err := i.Detach(); err != nil { // what was left by a process that was killed
		return "", err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", fault.New(fault.ImageMount, "make mount point: %w", err)
	}
	if err := i.mount(ctx, dir, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV); err != nil {
		return "", errors.Join(err, os.Remove(dir))
	}
	return dir, nil
}

// Detach takes away what Attach has mounted; nothing is fine. Where nobody else
// uses the image, all of it is on the disk when Detach returns.
func (i Image) Detach() error {
	if err := i.Unmount(); err != nil {
		return err
	}
	dir := filepath.Join(i.Dir, Point)
	if err := os.Remove(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fault.New(fault.ImageUmount, "remove mount point: %w", err)
	}
	return nil
}

// Unmount takes away what is mounted at Point, but not the directory, which is
// the container's where there is no image.
func (i Image) Unmount() error {
	dir := filepath.Join(i.Dir, Point)
	for {
		err := unix.Unmount(dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
			return nil
		}
		if err != nil {
			return fault.New(fault.ImageUmount, "unmount %q: %w", dir, err)
		}
	}
}

// mount puts the top of the file system at dir for as long as it takes to get a
// mount of the container's files alone: from a mount that is attached nowhere,
// kernels before 6.15 cannot take a part.
func (i Image) mount(ctx context.Context, dir string, attrs int) error {
	top, err := i.top(ctx, attrs)
	if err != nil {
		return err
	}
	defer top.Close()
	part, err := i.part(top, dir)
	if err != nil {
		return err
	}
	defer unix.Close(part)
	if err := unix.MoveMount(part, "", unix.AT_FDCWD, dir, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fault.New(fault.ImageMount, "mount image %q on %q: %w", i.Path(), dir, err)
	}
	if err := unix.Mount("", dir, "", unix.MS_PRIVATE, ""); err != nil {
		err = fault.New(fault.ImageMount, "make %q private: %w", dir, err)
		return errors.Join(err, unix.Unmount(dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW))
	}
	return nil
}

// part is a mount, attached nowhere, of the container's files.
func (i Image) part(top *os.File, dir string) (fd int, err error) {
	if err := unix.MoveMount(int(top.Fd()), "", unix.AT_FDCWD, dir, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return -1, fault.New(fault.ImageMount, "mount image %q on %q: %w", i.Path(), dir, err)
	}
	defer func() {
		if uerr := unix.Unmount(dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); uerr != nil {
			err = errors.Join(err, fault.New(fault.ImageUmount, "unmount %q: %w", dir, uerr))
		}
	}()
	if err := unix.Mount("", dir, "", unix.MS_PRIVATE, ""); err != nil {
		return -1, fault.New(fault.ImageMount, "make %q private: %w", dir, err)
	}
	how := &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS,
	}
	files, err := unix.Openat2(int(top.Fd()), filesDir, how)
	if err != nil {
		return -1, fault.New(fault.ImageMount, "image %q has no container's files: %w", i.Path(), err)
	}
	defer unix.Close(files)
	fd, err = unix.OpenTree(files, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
	if err != nil {
		return -1, fault.New(fault.ImageMount, "take container's files of image %q: %w", i.Path(), err)
	}
	return fd, nil
}

// within calls do with the top of the file system, which is mounted nowhere
// that anyone could see, and is gone with this process.
func (i Image) within(ctx context.Context, do func(top *os.File) error) error {
	mounted, err := i.top(ctx, hidden)
	if err != nil {
		return err
	}
	defer mounted.Close()
	fd, err := unix.Openat(int(mounted.Fd()), ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fault.New(fault.ImageMount, "open image %q: %w", i.Path(), err)
	}
	top := os.NewFile(uintptr(fd), i.Path())
	defer top.Close()
	return do(top)
}

// top mounts the file system without attaching it anywhere; what it returns is
// open for paths only. If the file system is mounted already, this is one mount
// more of the same.
func (i Image) top(ctx context.Context, attrs int) (*os.File, error) {
	dev, err := i.device(ctx)
	if err != nil {
		return nil, err
	}
	defer dev.Close()
	fsfd, err := unix.Fsopen("ext4", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, fault.New(fault.NoImages, "use ext4: %w", err)
	}
	defer unix.Close(fsfd)
	err = unix.FsconfigSetString(fsfd, "source", dev.Name())
	if err == nil { // whatever an image that has come from elsewhere would have the kernel do
		err = unix.FsconfigSetString(fsfd, "errors", "remount-ro")
	}
	if err == nil {
		err = unix.FsconfigCreate(fsfd)
	}
	if err != nil {
		return nil, fault.New(fault.ImageMount, "mount image %q: %w%s", i.Path(), err, complaint(fsfd)).
			WithHint("e2fsck -f %s shows what is wrong and repairs what it can.", i.Path())
	}
	fd, err := unix.Fsmount(fsfd, unix.FSMOUNT_CLOEXEC, attrs)
	if err != nil {
		return nil, fault.New(fault.ImageMount, "mount image %q: %w", i.Path(), err)
	}
	return os.NewFile(uintptr(fd), i.Path()), nil
}

// complaint is what the kernel has to say of a mount that failed.
func complaint(fsfd int) string {
	buf := make([]byte, 1024)
	n, err := unix.Read(fsfd, buf)
	if err != nil || n <= 2 {
		return ""
	}
	return ": " + strings.TrimSpace(string(bytes.TrimPrefix(buf[:n], []byte("e "))))
}
