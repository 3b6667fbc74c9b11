package criu

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Show has a worker see what is mounted at path since it was started. One that
// shares our mounts sees it anyway.
func (w *Worker) Show(path string) error {
	theirs := fmt.Sprintf("/proc/%d/ns/mnt", w.PID())
	if same, err := sameFile("/proc/self/ns/mnt", theirs); err != nil || same {
		return err
	}
	tree, err := unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return fmt.Errorf("take mount %q: %w", path, err)
	}
	defer unix.Close(tree)
	ns, err := os.Open(theirs)
	if err != nil {
		return err
	}
	defer ns.Close()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with its other mounts
		done <- mountIn(int(ns.Fd()), tree, path)
	}()
	if err := <-done; err != nil {
		return fmt.Errorf("mount %q for criu: %w", path, err)
	}
	return nil
}

// mountIn has this thread enter a mount namespace, and mounts tree at path
// there.
func mountIn(ns, tree int, path string) error {
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return err
	}
	if err := unix.Setns(ns, unix.CLONE_NEWNS); err != nil {
		return err
	}
	return unix.MoveMount(tree, "", unix.AT_FDCWD, path, unix.MOVE_MOUNT_F_EMPTY_PATH)
}

func sameFile(a, b string) (bool, error) {
	x, err := os.Stat(a)
	if err != nil {
		return false, err
	}
	y, err := os.Stat(b)
	return err == nil && os.SameFile(x, y), err
}
