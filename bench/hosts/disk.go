package hosts

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/internal/undo"
)

// Need is what a measurement takes of the disk, at most.
type Need struct {
	Bytes  uint64 // on both hosts together
	Inodes uint64 // on each host
}

const (
	mib = 1 << 20

	// diskSize is that of each host's file system, unless more is needed: the
	// same for all, because the journal's size depends on it.
	diskSize = 32 << 30

	// inodeSize is what each inode takes when the file system is made.
	inodeSize = 256

	// perInode is the share of a file system that has one inode at most: a group
	// of 128 MiB has 32,768 (ext4(5), mke2fs(8)).
	perInode = 4096
)

func (n Need) diskSize() uint64 { return max(diskSize, n.Bytes, n.Inodes*perInode) &^ (mib - 1) }

// Check refuses a directory below which there is too little room.
func (n Need) Check(dir string) error {
	need := n.Bytes + 2*n.Inodes*inodeSize
	var fs unix.Statfs_t
	for at := filepath.Clean(dir); unix.Statfs(at, &fs) != nil; at = filepath.Dir(at) {
		if at == filepath.Dir(at) {
			return nil
		}
	}
	if free := fs.Bavail * uint64(fs.Bsize); free < need {
		return fault.New(fault.NoSpace, "%d MiB free for %q, %d needed", free/mib, dir, need/mib).
			WithHint("Choose another place with VZLAB_DIR, or measure less.")
	}
	return nil
}

// mountDisks gives each host a fresh ext4 of its own where its /var/lib/vz will
// be, and says so. Where there are no loop devices the hosts share what the
// lab's directory is on; log gets a line.
//
// Neither the files nor the mounts need removing where all went well: they are
// in directories of the lab's, and go with it, and a device goes with its mount.
func mountDisks(ctx context.Context, dir string, need Need, log io.Writer) (about string, err error) {
	var u undo.Stack
	for _, host := range []string{Alpha, Beta} {
		about, err = mountDisk(ctx, filepath.Join(dir, host), need, &u)
		if err == nil {
			continue
		}
		if err = errors.Join(err, u.Run()); fault.KindOf(err) == fault.NoImages {
			fmt.Fprintf(log, "hosts share one file system: %v\n", err)
			return shared(ctx, dir), nil
		}
		return "", err
	}
	return about, nil
}

// mountDisk makes what one host needs, in its directory.
func mountDisk(ctx context.Context, dir string, need Need, u *undo.Stack) (about string, err error) {
	target, image := filepath.Join(dir, "var-lib-vz"), filepath.Join(dir, "disk")
	if err := os.MkdirAll(target, 0o755); err != nil {
		return "", fmt.Errorf("make mount point: %w", err)
	}
	u.Push("remove disk", func() error { return os.RemoveAll(image) })
	if err := makeDisk(ctx, image, need); err != nil {
		return "", err
	}
	dev, direct, err := attach(image)
	if err != nil {
		return "", err
	}
	defer dev.Close()
	if err := unix.Mount(dev.Name(), target, "ext4", 0, ""); err != nil {
		return "", fmt.Errorf("mount %q: %w", target, err)
	}
	u.Push("unmount disk", func() error { return unix.Unmount(target, unix.MNT_DETACH) })
	if direct {
		return "ext4 of each host's own, on a loop device with direct I/O", nil
	}
	return "ext4 of each host's own, on a loop device without direct I/O", nil
}

// makeDisk makes a file system in a sparse file, with nothing left to do for
// the kernel later.
func makeDisk(ctx context.Context, image string, need Need) error {
	tool, err := exec.LookPath("mke2fs")
	if err != nil {
		return fault.New(fault.NoImages, "no mke2fs on this machine")
	}
	args := []string{"-F", "-q", "-t", "ext4", "-I", strconv.Itoa(inodeSize), "-E", "lazy_itable_init=0,lazy_journal_init=0"}
	if need.Inodes > 0 {
		args = append(args, "-N", strconv.FormatUint(need.Inodes, 10))
	}
	args = append(args, image, strconv.FormatUint(need.diskSize()/mib, 10)+"M")
	return Run(exec.CommandContext(ctx, tool, args...), nil)
}

// attach gives a file a loop device, which is released with its last user
// (loop(4)). direct tells whether the file is read and written past the page
// cache, which not every file system can.
func attach(image string) (dev *os.File, direct bool, err error) {
	file, err := os.OpenFile(image, os.O_RDWR, 0)
	if err != nil {
		return nil, false, err
	}
	defer file.Close()
	if dev, err = configure(file); err != nil {
		return nil, false, fault.New(fault.NoImages, "get a loop device: %w", err)
	}
	info, err := unix.IoctlLoopGetStatus64(int(dev.Fd()))
	if err != nil {
		dev.Close()
		return nil, false, fmt.Errorf("status of %s: %w", dev.Name(), err)
	}
	return dev, info.Flags&unix.LO_FLAGS_DIRECT_IO != 0, nil
}

func configure(file *os.File) (*os.File, error) {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer control.Close()
	config := unix.LoopConfig{Fd: uint32(file.Fd())}
	config.Info.Flags = unix.LO_FLAGS_AUTOCLEAR | unix.LO_FLAGS_DIRECT_IO
	for range 64 { // others take free devices, too
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, err
		}
		dev, err := os.OpenFile(fmt.Sprintf("/dev/loop%d", n), os.O_RDWR, 0)
		if err != nil {
			return nil, err
		}
		if err = unix.IoctlLoopConfigure(int(dev.Fd()), &config); err == nil {
			return dev, nil
		}
		dev.Close()
		if !errors.Is(err, unix.EBUSY) {
			return nil, err
		}
	}
	return nil, unix.EBUSY
}

// shared describes the file system that the lab's directory is on.
func shared(ctx context.Context, dir string) string {
	kind, err := exec.CommandContext(ctx, "findmnt", "-n", "-o", "FSTYPE", "-T", dir).Output()
	if err != nil {
		return "one, shared by the hosts"
	}
	return strings.TrimSpace(string(kind)) + ", shared by the hosts"
}

// releaseIn is how long the kernel may take to give back loop devices after
// the mounts are gone.
const releaseIn = 30 * time.Second

// released waits until nothing below dir is on a loop device.
func released(dir string) error {
	for end := time.Now().Add(releaseIn); ; time.Sleep(20 * time.Millisecond) {
		devices, err := backedBelow(dir)
		if err != nil || len(devices) == 0 {
			return err
		}
		if time.Now().After(end) {
			return fmt.Errorf("still in use: %s", strings.Join(devices, ", "))
		}
	}
}

// backedBelow are the loop devices whose files are below dir, or were.
func backedBelow(dir string) (devices []string, err error) {
	names, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		file, err := os.ReadFile(name)
		if err == nil && strings.HasPrefix(string(file), dir+"/") {
			devices = append(devices, "/dev/"+strings.Split(name, "/")[3])
		}
	}
	return devices, nil
}
