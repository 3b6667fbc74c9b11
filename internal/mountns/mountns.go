// Package mountns starts commands in mount namespaces of their own.
package mountns

import (
	"syscall"

	"github.com/moby/sys/mountinfo"
)

// Private has a command run in a mount namespace of its own, so that its mounts
// end with it. They do not reach the machine: all mounts are made private. Only
// in a chroot whose "/" is no mount point that cannot be done, and they
// propagate as they did for whoever made the chroot.
func Private(attr *syscall.SysProcAttr) {
	if Chrooted() {
		attr.Cloneflags |= syscall.CLONE_NEWNS
		return
	}
	attr.Unshareflags |= syscall.CLONE_NEWNS // package syscall makes the mounts private, too
}

// Chrooted tells whether this process is in a chroot whose root is no mount
// point. There the kernel gives no user namespaces (user_namespaces(7)), no
// root can be pivoted away from, and CRIU refuses to work.
func Chrooted() bool {
	mounts, err := mountinfo.GetMounts(mountinfo.SingleEntryFilter("/"))
	return err == nil && len(mounts) == 0
}
