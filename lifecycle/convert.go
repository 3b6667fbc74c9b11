package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/internal/undo"
	"github.com/vzkit/vzkit/lifecycle/config"
	"github.com/vzkit/vzkit/lifecycle/image"
)

// Carrier copies trees with everything in them, which this package leaves to
// those who move them over the network, too.
type Carrier interface {
	// Measure returns how many bytes and inodes a tree occupies.
	Measure(ctx context.Context, root string) (bytes, inodes uint64, err error)
	// Copy makes the empty directory to like the directory from.
	Copy(ctx context.Context, from, to string) error
}

// A conversion makes the new private area beside the old one and swaps them in
// two renames. Both areas are named by their layouts in a directory of that
// name plus the CTID, beside the private area:
//
//	make .convert-101/image, fill it, sync
//	rename 101 to .convert-101/dir
//	rename .convert-101/image to 101
//	save the config, which decides
//	remove .convert-101
//
// Whatever comes in between: settle, the first thing that any command does,
// puts the area of the layout that the config names in its place.
const convertPrefix = ".convert-"

func (c *Container) convertDir() string {
	return filepath.Join(filepath.Dir(c.Private()), convertPrefix+c.id())
}

// Convert gives a stopped, unmounted container another layout, an image of that
// many bytes, or with 0 of what its config says. If that is nothing, the image
// is as large as it takes.
func (c *Container) Convert(ctx context.Context, to Layout, size int64, by Carrier) error {
	return c.locked("vzctl convert", func() error {
		s, err := c.stopped()
		switch {
		case err != nil:
			return err
		case s.Mounted:
			return fault.New(fault.Mounted, "container %d is mounted", c.ID).WithHint("vzctl umount %d first.", c.ID)
		case !s.Exists:
			return fault.New(fault.NoContainer, "container %d has no private area %q", c.ID, c.Private())
		case c.Layout() == to:
			return fault.New(fault.Convert, "container %d has the layout %s already", c.ID, to)
		}
		return fault.Wrap(fault.Convert, c.convert(ctx, to, size, by))
	})
}

func (c *Container) convert(ctx context.Context, to Layout, size int64, by Carrier) error {
	from, release, err := c.Files(ctx)
	if err != nil {
		return err
	}
	var u undo.Stack
	defer u.Run()
	u.Push("unmount "+from, release)
	bytes, inodes, err := by.Measure(ctx, from)
	if err != nil {
		return err
	}
	next, err := c.as(to, size, bytes, inodes)
	if err != nil {
		return err
	}
	if err := checkRoom(filepath.Dir(c.Private()), bytes, inodes); err != nil {
		return err
	}
	u.Push("settle", c.settle)
	if err := next.fillFrom(ctx, from, bytes, inodes, by); err != nil {
		return err
	}
	if err := release(); err != nil {
		return err
	}
	if err := c.swap(next); err != nil {
		return err
	}
	return c.clearConversion()
}

// as is the container with another layout, and an image of that size. Where it
// is to be found out and no config says it, the image is as large as it takes.
func (c *Container) as(to Layout, size int64, bytes, inodes uint64) (*Container, error) {
	f, err := config.Parse(c.Conf.Bytes())
	if err != nil {
		return nil, err
	}
	if size == 0 {
		size = c.DiskSpace()
		_, set := c.Conf.Get("DISKSPACE")
		for !set && size < image.MaxSize/2 && image.Fits(size, bytes, inodes) != nil {
			size *= 2
		}
	}
	if err := (&Container{Conf: f}).SetLayout(to, size); err != nil {
		return nil, err
	}
	return c.host.With(c.ID, f)
}

// checkRoom refuses a tree that is too large for the host's disk.
func checkRoom(dir string, bytes, inodes uint64) error {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return fmt.Errorf("look at file system of %q: %w", dir, err)
	}
	need := bytes + inodes*256 + 16<<20 // and tables, and a journal
	if free := fs.Bavail * uint64(fs.Bsize); need > free {
		return fault.New(fault.NoSpace, "conversion needs %d MiB below %q, and %d MiB are free", need>>20, dir, free>>20).
			WithHint("Both copies are there until the new one is complete.")
	}
	if fs.Files > 0 && inodes > fs.Ffree {
		return fault.New(fault.NoSpace, "conversion needs %d inodes below %q, and %d are free", inodes, dir, fs.Ffree)
	}
	return nil
}

// fillFrom makes the new area, of the layout that c has, and brings it to the
// disk.
func (c *Container) fillFrom(ctx context.Context, from string, bytes, inodes uint64, by Carrier) error {
	dir := filepath.Join(c.convertDir(), string(c.Layout()))
	if err := errors.Join(os.Mkdir(c.convertDir(), 0o700), os.Mkdir(dir, 0o700)); err != nil {
		return fmt.Errorf("make conversion's directory: %w", err)
	}
	area, err := c.NewArea(ctx, dir, bytes, inodes)
	if err != nil {
		return err
	}
	defer area.Close()
	if err := by.Copy(ctx, from, area.Files); err != nil {
		return err
	}
	if err := errors.Join(area.Sync(), area.Close(), syncTree(dir)); err != nil {
		return fmt.Errorf("sync new private area: %w", err)
	}
	return ctx.Err()
}

// swap puts the new area in the place of the old one, and then makes it count.
func (c *Container) swap(next *Container) error {
	old, area := filepath.Join(c.convertDir(), string(c.Layout())), filepath.Join(c.convertDir(), string(next.Layout()))
	if err := errors.Join(os.Rename(c.Private(), old), os.Rename(area, c.Private()), c.syncSwap()); err != nil {
		return fmt.Errorf("swap private areas: %w", err)
	}
	conf := c.host.ConfPath(c.ID)
	if err := next.Conf.Save(conf); err != nil {
		return err
	}
	c.Conf = next.Conf
	return SyncDir(filepath.Dir(conf))
}

func (c *Container) syncSwap() error {
	return errors.Join(SyncDir(filepath.Dir(c.Private())), SyncDir(c.convertDir()))
}

// settle brings a conversion that was killed to one of its ends, as the config
// on the disk says, which may have changed before the caller had the lock. What
// an area is left mounted for has ended, too.
func (c *Container) settle() error {
	fresh, err := c.host.Open(c.ID)
	if fault.KindOf(err) == fault.NoContainer { // one that is not on the disk yet, or no more
		return nil
	}
	if err != nil {
		return err
	}
	c.Conf = fresh.Conf
	if _, err := os.Lstat(c.convertDir()); err == nil {
		if err := c.putBack(); err != nil {
			return fault.New(fault.Convert, "settle conversion that was interrupted: %w", err)
		}
		_ = c.clearConversion() // what cannot be removed does no harm
	}
	if c.Layout() == LayoutImage {
		return c.image(c.Private()).Detach()
	}
	return nil
}

// putBack puts the area that counts into its place.
func (c *Container) putBack() error {
	mine, other := LayoutDir, LayoutImage
	if c.Layout() == other {
		mine, other = other, mine
	}
	area := filepath.Join(c.convertDir(), string(mine))
	if _, err := os.Lstat(area); err != nil {
		return nil // it is in its place
	}
	err := os.Rename(c.Private(), filepath.Join(c.convertDir(), string(other)))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return errors.Join(os.Rename(area, c.Private()), c.syncSwap())
}

// clearConversion removes the area that does not count.
func (c *Container) clearConversion() error {
	return errors.Join(c.image(filepath.Join(c.convertDir(), string(LayoutImage))).Unmount(), removeAll(c.convertDir()))
}
