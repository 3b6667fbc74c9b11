package launch

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// child runs as pid 1 of the new namespaces and becomes init. All namespace
// and mount calls stay on one thread, the one that execs.
func child() {
	runtime.LockOSThread()
	unix.CloseOnExec(specFD)
	unix.CloseOnExec(statusFD)
	err := becomeInit()
	fmt.Fprint(os.NewFile(statusFD, "status"), err)
	os.Exit(1)
}

func becomeInit() error {
	var spec Spec
	if err := json.NewDecoder(os.NewFile(specFD, "spec")).Decode(&spec); err != nil {
		return fmt.Errorf("read spec: %w", err)
	}
	// Only now: the cgroup that a cgroup namespace is rooted at is the one
	// its creator is in, and the parent has just moved us.
	if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil {
		return fmt.Errorf("unshare cgroup namespace: %w", err)
	}
	if err := buildRoot(spec.Root); err != nil {
		return err
	}
	if err := unix.Sethostname([]byte(spec.Hostname)); err != nil {
		return fmt.Errorf("set hostname %q: %w", spec.Hostname, err)
	}
	if err := openStdio(); err != nil {
		return err
	}
	if err := closeFrom(3); err != nil {
		return err
	}
	unix.Umask(0o022)
	return fmt.Errorf("exec %q: %w", spec.Argv[0], syscall.Exec(spec.Argv[0], spec.Argv, spec.Env))
}

// closeFrom lets the descriptors from first on end with the next exec. What
// the caller was started with must not leak into a container: it could not be
// checkpointed, and might be a way out.
func closeFrom(first uint) error {
	if err := unix.CloseRange(first, ^uint(0), unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("close descriptors: %w", err)
	}
	return nil
}

// mount is one file system of a container. There are few on purpose: each one
// costs a checkpoint milliseconds.
type mount struct {
	kind, target, options string
	flags                 uintptr
}

const secure = unix.MS_NOSUID | unix.MS_NOEXEC | unix.MS_NODEV

var mounts = []mount{
	{"proc", "proc", "", secure},
	{"sysfs", "sys", "", secure},
	{"devpts", "dev/pts", "newinstance,ptmxmode=0666,mode=0620,gid=5", unix.MS_NOSUID | unix.MS_NOEXEC},
	{"tmpfs", "dev/shm", "mode=1777", unix.MS_NOSUID | unix.MS_NODEV},
}

// buildRoot makes dir the root of this mount namespace, with the container's
// file systems on it, and drops everything of the host's.
func buildRoot(dir string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount(dir, dir, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind root %q: %w", dir, err)
	}
	if err := os.Chdir(dir); err != nil {
		return fmt.Errorf("enter root: %w", err)
	}
	for _, m := range mounts {
		if err := mountInside(m); err != nil {
			return err
		}
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot to %q: %w", dir, err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("drop host's mounts: %w", err)
	}
	return os.Chdir("/")
}

// mountInside mounts m below the current directory, which a hostile template
// may have filled with symbolic links: no part of the target may be one.
func mountInside(m mount) error {
	if err := makeDirs(m.target); err != nil {
		return fmt.Errorf("make mount point %q: %w", m.target, err)
	}
	fd, err := unix.Openat2(unix.AT_FDCWD, m.target, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS,
	})
	if err != nil {
		return fmt.Errorf("open mount point %q: %w", m.target, err)
	}
	defer unix.Close(fd)
	if err := unix.Mount(m.kind, fmt.Sprintf("/proc/self/fd/%d", fd), m.kind, m.flags, m.options); err != nil {
		return fmt.Errorf("mount %s on %q: %w", m.kind, m.target, err)
	}
	return nil
}

func makeDirs(path string) error {
	if parent := filepath.Dir(path); parent != "." {
		if err := makeDirs(parent); err != nil {
			return err
		}
	}
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return os.Mkdir(path, 0o755)
	}
	if err == nil && !info.IsDir() {
		return unix.ENOTDIR
	}
	return err
}

// openStdio makes the container's own null device descriptors 0 to 2.
func openStdio() error {
	null, err := unix.Open("/dev/null", unix.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("open container's /dev/null: %w", err)
	}
	for fd := range 3 {
		if err := unix.Dup3(null, fd, 0); err != nil && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("set descriptor %d: %w", fd, err)
		}
	}
	return nil
}
