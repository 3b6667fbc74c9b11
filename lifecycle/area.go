package lifecycle

import (
	"context"
	"errors"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/lifecycle/image"
)

// Area is a private area that is being made, in a directory that becomes the
// container's by a rename.
type Area struct {
	Dir   string // what is to be renamed
	Files string // where the container's files go; the same, or within; "" if an image arrives
	image *image.Image
}

// NewArea makes an empty private area of the container's layout in dir, which
// exists and is empty. bytes and inodes are what is known of the tree to come;
// one that would not fit into the image is refused (fault.NoSpace). The
// container can be prepared around dir while the area is open, and dir be
// renamed. Whoever gives up closes the area and removes dir.
func (c *Container) NewArea(ctx context.Context, dir string, bytes, inodes uint64) (*Area, error) {
	if c.Layout() == LayoutDir {
		return &Area{Dir: dir, Files: dir}, nil
	}
	if err := image.Fits(c.DiskSpace(), bytes, inodes); err != nil {
		return nil, err
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return nil, fault.New(fault.ImageCreate, "close private area: %w", err)
	}
	i := c.image(dir)
	if err := i.Make(ctx, c.DiskSpace(), inodes); err != nil {
		return nil, err
	}
	files, err := i.Attach(ctx)
	if err != nil {
		return nil, err
	}
	return &Area{Dir: dir, Files: files, image: &i}, nil
}

// ArrivingArea is a private area in dir, which exists and is empty, for an image
// that will be put there as it is. Its files cannot be reached.
func (c *Container) ArrivingArea(dir string) (*Area, error) {
	if err := os.Chmod(dir, 0o700); err != nil {
		return nil, fault.New(fault.ImageCreate, "close private area: %w", err)
	}
	i := c.image(dir)
	return &Area{Dir: dir, image: &i}, nil
}

// Moved tells the area that its directory has been renamed.
func (a *Area) Moved(dir string) {
	if a.image != nil {
		a.image.Dir = dir
	}
	a.Dir = dir
}

// Sync returns when the files are on the disk.
func (a *Area) Sync() error { return syncTree(a.Files) }

func syncTree(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(unix.Syncfs(int(d.Fd())), d.Close())
}

// Close ends the access by Files. The area stays. Closing twice is fine.
func (a *Area) Close() error {
	if a.image == nil {
		return nil
	}
	return a.image.Detach()
}

// Files gives the directory with the container's files, mounted or not, running
// or not, until release. The caller holds the container's lock.
func (c *Container) Files(ctx context.Context) (dir string, release func() error, err error) {
	nothing := func() error { return nil }
	if err := c.settle(); err != nil {
		return "", nothing, err
	}
	if c.Layout() == LayoutDir {
		return c.Private(), nothing, nil
	}
	at, err := c.rootMount()
	if err != nil {
		return "", nothing, err
	}
	if at == rootOurs {
		return c.Root(), nothing, nil
	}
	i := c.image(c.Private())
	if dir, err = i.Attach(ctx); err != nil {
		return "", nothing, err
	}
	return dir, sync.OnceValue(i.Detach), nil
}

// Resize gives the container's image a new size, in bytes, while it runs too,
// and puts it into the config.
func (c *Container) Resize(ctx context.Context, size int64) error {
	return c.locked("vzctl set", func() error {
		if err := c.wantImage(); err != nil {
			return err
		}
		if err := c.image(c.Private()).Resize(ctx, size); err != nil {
			return err
		}
		if err := c.SetLayout(LayoutImage, size); err != nil {
			return err
		}
		return c.Conf.Save(c.host.ConfPath(c.ID))
	})
}

func (c *Container) wantImage() error {
	if c.Layout() == LayoutImage {
		return nil
	}
	return fault.New(fault.BadValue, "container %d has the layout dir, which has no size", c.ID).
		WithHint("vzctl convert %d --layout image gives it one.", c.ID)
}

// Compact gives the space that the container has deleted back to the host, and
// returns how many bytes that were.
func (c *Container) Compact(ctx context.Context) (freed int64, err error) {
	err = c.locked("vzctl compact", func() error {
		if c.Layout() == LayoutImage {
			freed, err = c.image(c.Private()).Compact(ctx)
		}
		return err
	})
	return freed, err
}
