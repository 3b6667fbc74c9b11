package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/vzkit/vzkit/lifecycle/cgroup"
)

// hostMark is a file in a host's /run; it holds the lab's directory.
const hostMark = "/run/vzlab-host"

// mountAll gives the host, in whose new mount namespace it runs, its own view
// of the file system.
func (h *Host) mountAll(hs []cgroup.Hierarchy) error {
	if err := makePrivate(); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	for _, step := range []func() error{h.bindState, mountProc, func() error { return mountSys(hs) }, h.mountRun} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// makePrivate cuts the namespace's mounts off from those of the machine. In a
// chroot the host first gets a root of its own.
func makePrivate() error {
	err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
	if !errors.Is(err, unix.EINVAL) {
		return err
	}
	return leaveChroot()
}

// leaveChroot makes a copy of the tree below a chroot, whose root is no mount
// point, the root of the mount namespace. In a chroot no mount can be made
// private, no root pivoted, and no user namespace made (user_namespaces(7)).
func leaveChroot() error {
	fd, err := unix.OpenTree(unix.AT_FDCWD, "/", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	if err != nil {
		return fmt.Errorf("copy mounts: %w", err)
	}
	defer unix.Close(fd)
	private := &unix.MountAttr{Propagation: unix.MS_PRIVATE}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, private); err != nil {
		return fmt.Errorf("make copy private: %w", err)
	}
	if err := toNamespaceRoot(); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := unix.MoveMount(fd, "", unix.AT_FDCWD, "/", unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("mount copy on root: %w", err)
	}
	if err := unix.Fchdir(fd); err != nil {
		return err
	}
	return unix.Chroot(".")
}

// toNamespaceRoot makes the root of the mount namespace this process's root:
// from a working directory outside of its chroot, ".." leads there (chroot(2)).
func toNamespaceRoot() error {
	if err := errors.Join(unix.Chdir("/"), unix.Chroot("/proc")); err != nil {
		return fmt.Errorf("leave chroot: %w", err)
	}
	for {
		var here, above unix.Stat_t
		if err := errors.Join(unix.Stat(".", &here), unix.Stat("..", &above)); err != nil {
			return fmt.Errorf("leave chroot: %w", err)
		}
		if here.Dev == above.Dev && here.Ino == above.Ino {
			return unix.Chroot(".")
		}
		if err := unix.Chdir(".."); err != nil {
			return fmt.Errorf("leave chroot: %w", err)
		}
	}
}

func (h *Host) bindState() error {
	targets := mountPoints()
	for i, source := range []string{h.path("etc-vz"), h.path("var-lib-vz"), h.lab.path("ssh")} {
		if err := unmountBelow(targets[i]); err != nil { // the machine may have containers of its own
			return err
		}
		if err := mount(source, targets[i], "", unix.MS_BIND, ""); err != nil {
			return err
		}
	}
	return mount(h.lab.path("template"), templateDir, "", unix.MS_BIND, "")
}

func mountProc() error {
	detach("/proc")
	return mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
}

// mountSys mounts a sysfs that shows the host's interfaces and, where the
// machine has them, cgroup trees that begin at the host's own groups.
func mountSys(hs []cgroup.Hierarchy) error {
	const base = "/sys/fs/cgroup"
	links := symlinks(base)
	detach("/sys")
	const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	if err := mount("sysfs", "/sys", "sysfs", flags, ""); err != nil {
		return err
	}
	if len(hs) > 1 || hs[0].Mount != base {
		if err := mount("tmpfs", base, "tmpfs", flags, "mode=755,size=1m"); err != nil {
			return err
		}
	}
	for _, h := range hs {
		if err := os.MkdirAll(h.Mount, 0o755); err != nil {
			return fmt.Errorf("make cgroup mount point: %w", err)
		}
		if err := mountHierarchy(h, flags); err != nil {
			return err
		}
	}
	for name, target := range links {
		_ = os.Symlink(target, filepath.Join(base, name)) // one that is there is as good
	}
	return nil
}

func mountHierarchy(h cgroup.Hierarchy, flags uintptr) error {
	if h.Unified {
		return mount("cgroup2", h.Mount, "cgroup2", flags, "")
	}
	options := h.Name
	if strings.HasPrefix(options, "name=") {
		options = "none," + options
	}
	return mount("cgroup", h.Mount, "cgroup", flags, options)
}

// symlinks lists dir's: distributions give joined v1 controllers one directory
// and a link for each.
func symlinks(dir string) map[string]string {
	links := map[string]string{}
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if target, err := os.Readlink(filepath.Join(dir, e.Name())); err == nil {
			links[e.Name()] = target
		}
	}
	return links
}

func (h *Host) mountRun() error {
	if err := unmountBelow("/run"); err != nil {
		return err
	}
	if err := mount("tmpfs", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755,size=50%"); err != nil {
		return err
	}
	return errors.Join(
		os.Mkdir("/run/sshd", 0o755), // sshd(8) refuses to start without
		os.Mkdir("/run/lock", 0o1777),
		os.WriteFile(hostMark, []byte(h.lab.Dir+"\n"), 0o644),
	)
}

func mount(source, target, fstype string, flags uintptr, options string) error {
	if err := unix.Mount(source, target, fstype, flags, options); err != nil {
		return fmt.Errorf("mount %q: %w", target, err)
	}
	return nil
}

// detach takes away every mount at target, and what is mounted below, so that
// nobody finds the machine's underneath the host's.
func detach(target string) {
	for unix.Unmount(target, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW) == nil {
	}
}
