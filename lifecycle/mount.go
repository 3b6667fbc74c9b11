package lifecycle

import (
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/internal/undo"
)

// mount makes the private area visible at the container's root. It is private
// to this mount namespace's propagation: CRIU takes it as the container's
// root, which must be a mount point of its own.
func (c *Container) mount(private string, u *undo.Stack) error {
	root := c.Root()
	if err := os.MkdirAll(filepath.Dir(root), 0o711); err != nil {
		return fault.New(fault.Mount, "make mount point: %w", err)
	}
	if err := os.Mkdir(root, 0o755); err == nil {
		u.Push("remove "+root, func() error { return removeEmpty(root) })
	} else if !os.IsExist(err) {
		return fault.New(fault.Mount, "make mount point: %w", err)
	}
	if err := unix.Mount(private, root, "", unix.MS_BIND, ""); err != nil {
		return fault.New(fault.Mount, "mount %q on %q: %w", private, root, err)
	}
	u.Push("unmount "+root, c.unmount)
	if err := unix.Mount("", root, "", unix.MS_PRIVATE, ""); err != nil {
		return fault.New(fault.Mount, "make %q private: %w", root, err)
	}
	return nil
}

// unmount takes the container's root down, as often as it is mounted; it is
// fine if it is not.
func (c *Container) unmount() error {
	for {
		err := unix.Unmount(c.Root(), unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if err == unix.EINVAL || err == unix.ENOENT {
			return nil
		}
		if err != nil {
			return fault.New(fault.Unmount, "unmount %q: %w", c.Root(), err)
		}
	}
}

// Mount makes a stopped container's files visible at its root.
func (c *Container) Mount() error {
	return c.locked("vzctl mount", func() error {
		s, err := c.stopped()
		if err != nil {
			return err
		}
		if s.Mounted {
			return fault.New(fault.Mounted, "container %d is mounted already", c.ID)
		}
		var u undo.Stack
		defer u.Run()
		if err := c.mount(c.Private(), &u); err != nil {
			return err
		}
		u.Keep()
		return nil
	})
}

// Umount takes a stopped container's root down.
func (c *Container) Umount() error {
	return c.locked("vzctl umount", func() error {
		s, err := c.stopped()
		if err != nil {
			return err
		}
		if !s.Mounted {
			return fault.New(fault.NotMounted, "container %d is not mounted", c.ID)
		}
		return c.unmount()
	})
}
