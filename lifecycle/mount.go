package lifecycle

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/internal/undo"
	"github.com/vzkit/vzkit/lifecycle/image"
)

// What can be mounted at a container's root.
const (
	rootFree    = iota // nothing
	rootOurs           // the container's files
	rootForeign        // something else, which is none of our business
)

// rootMount tells what is mounted at the container's root.
func (c *Container) rootMount() (int, error) {
	mounts, err := mountinfo.GetMounts(mountinfo.SingleEntryFilter(c.Root()))
	switch {
	case err != nil:
		return 0, fault.New(fault.Mount, "look at %q: %w", c.Root(), err)
	case len(mounts) == 0:
		return rootFree, nil
	}
	if ours, err := c.holdsFiles(mounts[len(mounts)-1]); err != nil || ours {
		return rootOurs, err
	}
	return rootForeign, nil
}

// holdsFiles tells whether the mount at the root is that of the container's
// private area, or of one that is arriving (see package migrate). A directory
// that is gone shows by the mark it has in mountinfo, and by its name; an image
// by the label that its loop device bears, wherever its file is.
func (c *Container) holdsFiles(m *mountinfo.Info) (bool, error) {
	if m.Major == image.LoopMajor && image.LabelOf(m.Minor) == c.label() {
		return true, nil
	}
	arriving := filepath.Join(filepath.Dir(c.Private()), ".migrate-"+c.id()+"-")
	if dir, gone := strings.CutSuffix(m.Root, "//deleted"); gone {
		name := filepath.Base(dir)
		return name == filepath.Base(c.Private()) || strings.HasPrefix(name, filepath.Base(arriving)), nil
	}
	at, err := os.Stat(c.Root())
	if err != nil {
		return false, fault.New(fault.Mount, "look at %q: %w", c.Root(), err)
	}
	candidates, err := filepath.Glob(arriving + "*")
	for _, dir := range append(candidates, c.Private()) {
		if info, err := os.Stat(dir); err == nil && os.SameFile(info, at) {
			return true, nil
		}
	}
	return false, err
}

// checkRoot refuses a root that is in use for something else: what is there
// would be hidden, and later taken away.
func (c *Container) checkRoot() error {
	at, err := c.rootMount()
	if err != nil || at == rootOurs {
		return err
	}
	entries, err := os.ReadDir(c.Root())
	if at == rootForeign || len(entries) > 0 || (err != nil && !errors.Is(err, fs.ErrNotExist)) {
		return fault.New(fault.BadValue, "root %q is in use", c.Root()).
			WithHint("VE_ROOT, --root, must be a directory that is empty or does not exist.")
	}
	return nil
}

// mount makes the files of a private area visible at the container's root. It is private
// to this mount namespace's propagation: CRIU takes it as the container's
// root, which must be a mount point of its own.
func (c *Container) mount(private string, u *undo.Stack) error {
	if c.Layout() == LayoutImage {
		return c.mountImage(c.image(private), u)
	}
	if err := c.makeRoot(u); err != nil {
		return err
	}
	root := c.Root()
	if err := unix.Mount(private, root, "", unix.MS_BIND, ""); err != nil {
		return fault.New(fault.Mount, "mount %q on %q: %w", private, root, err)
	}
	u.Push("unmount "+root, c.unmount)
	if err := unix.Mount("", root, "", unix.MS_PRIVATE, ""); err != nil {
		return fault.New(fault.Mount, "make %q private: %w", root, err)
	}
	return nil
}

// mountImage mounts an image there.
func (c *Container) mountImage(i image.Image, u *undo.Stack) error {
	if err := c.makeRoot(u); err != nil {
		return err
	}
	if err := i.Mount(context.Background(), c.Root()); err != nil {
		return err
	}
	u.Push("unmount "+c.Root(), c.unmount)
	return nil
}

// makeRoot makes the mount point.
func (c *Container) makeRoot(u *undo.Stack) error {
	if err := c.checkRoot(); err != nil {
		return err
	}
	root := c.Root()
	if err := os.MkdirAll(filepath.Dir(root), 0o711); err != nil {
		return fault.New(fault.Mount, "make mount point: %w", err)
	}
	if err := os.Mkdir(root, 0o755); err != nil && !os.IsExist(err) {
		return fault.New(fault.Mount, "make mount point: %w", err)
	}
	u.Push("remove "+root, c.removeRoot)
	return nil
}

// unmount takes the container's files down from its root, as often as they are
// mounted there; it is fine if they are not. Whatever else is mounted stays.
func (c *Container) unmount() error {
	for {
		at, err := c.rootMount()
		if err != nil || at != rootOurs {
			return err
		}
		if err := unix.Unmount(c.Root(), unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			return fault.New(fault.Unmount, "unmount %q: %w", c.Root(), err)
		}
	}
}

// removeRoot removes the mount point if it is one of ours, named after the
// container, and nothing is mounted on it: the kernel would take mounts of
// other namespaces away with the directory.
func (c *Container) removeRoot() error {
	if at, err := c.rootMount(); err != nil || at != rootFree || filepath.Base(c.Root()) != c.id() {
		return err
	}
	err := os.Remove(c.Root())
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTEMPTY) { // somebody's files: theirs to remove
		return nil
	}
	return err
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
