package migrate

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/lifecycle"
	"github.com/vzkit/vzkit/lifecycle/image"
	"github.com/vzkit/vzkit/transport/files"
)

// chooseLayout puts the layout that was asked for into the config; else the
// container has the one it has at the source.
func (d *destination) chooseLayout() error {
	if d.offer.Layout == "" {
		return nil
	}
	l, err := lifecycle.ParseLayout(d.offer.Layout)
	if err != nil || l == d.c.Layout() {
		return err
	}
	d.converts = true
	return d.c.SetLayout(l, d.imageSize())
}

// imageSize is the size of an image for a container that had none: what its
// config says, or this host's default, or if that is too little what it takes.
func (d *destination) imageSize() int64 {
	size := d.c.DiskSpace()
	if _, set := d.c.Conf.Get("DISKSPACE"); set {
		return size
	}
	for size < image.MaxSize/2 && image.Fits(size, d.offer.Disk, d.offer.Inodes) != nil {
		size *= 2
	}
	return size
}

// makeArea makes the staging directory, an area of the container's layout, and
// in it the place where its files arrive.
func (d *destination) makeArea(ctx context.Context) error {
	d.staging = d.stagingPrefix() + d.offer.ID
	if err := os.Mkdir(d.staging, 0o700); err != nil {
		return fault.New(fault.Copy, "make staging directory: %w", err)
	}
	d.undo.Push("remove "+d.staging, d.dropArea)
	if d.way == byBlocks {
		return d.makeImage()
	}
	bytes := d.offer.Disk
	if d.c.Layout() == lifecycle.LayoutImage && !d.converts {
		bytes = 0 // it fits into an image of that size at the source
	}
	var err error
	if d.area, err = d.c.NewArea(ctx, d.staging, bytes, d.offer.Inodes); err != nil {
		return err
	}
	if d.tree, err = files.NewTarget(d.area.Files); err != nil {
		return err
	}
	return d.findLosses()
}

// dropArea removes the staging directory with all in it, or with --keep-dst
// keeps it for the next attempt.
func (d *destination) dropArea() error {
	var errs []error
	switch {
	case d.image != nil:
		errs = append(errs, d.image.Close())
	case d.tree == nil:
	case d.worthKeeping():
		return d.keepArea()
	case d.area.Files == d.staging:
		errs = append(errs, d.tree.Discard())
	default: // an image goes as a whole
		errs = append(errs, d.tree.Close())
	}
	if d.area != nil {
		errs = append(errs, d.area.Close())
	}
	return errors.Join(append(errs, os.RemoveAll(d.staging))...)
}

// worthKeeping tells whether the area is to be kept, and has more than what an
// earlier attempt has left.
func (d *destination) worthKeeping() bool {
	if !d.offer.KeepDst || !d.begun || d.full {
		return false
	}
	return d.passed || findKept(d.host, d.c.ID, keptPartial) == nil
}

// keepArea makes what has come of the container a base for the next attempt.
func (d *destination) keepArea() error {
	path := filepath.Join(filepath.Dir(d.c.Private()), fmt.Sprintf(".kept-%d", d.c.ID))
	err := errors.Join(d.tree.Close(), d.area.Close(), d.doom(path), d.c.Sweep())
	if err == nil {
		err = os.Rename(d.staging, path)
	}
	if err != nil {
		return err
	}
	return keep(d.host, d.c.ID, keptPartial, path, d.c.Layout())
}

// doom gives a directory, if it is there, a name by which lifecycle removes it.
func (d *destination) doom(path string) error {
	doomed := filepath.Join(filepath.Dir(d.c.Private()), fmt.Sprintf(".destroy-%d-%s%s", d.c.ID, d.offer.ID, filepath.Base(path)))
	err := os.Rename(path, doomed)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		d.doomed = append(d.doomed, doomed)
	}
	return err
}

// place makes the staging directory the private area; what was kept there
// changes places with it in the same instant. Calling it again is fine.
func (d *destination) place() error {
	if d.placed {
		return nil
	}
	how := uint(unix.RENAME_NOREPLACE)
	if k := findKept(d.host, d.c.ID, keptGone); k != nil && k.Path == d.c.Private() {
		how = unix.RENAME_EXCHANGE
	}
	if err := unix.Renameat2(unix.AT_FDCWD, d.staging, unix.AT_FDCWD, d.c.Private(), how); err != nil {
		return fault.New(fault.Copy, "put private area in place: %w", err)
	}
	d.placed, d.replaced = true, how == unix.RENAME_EXCHANGE
	d.area.Moved(d.c.Private())
	return nil
}

// retire takes what was kept of the container out of sight, now that it is
// here itself. It is removed when that keeps nobody waiting.
func (d *destination) retire() error {
	var errs []error
	if d.replaced {
		errs = append(errs, d.doom(d.staging))
	}
	for _, what := range []string{keptPartial, keptGone} {
		k := findKept(d.host, d.c.ID, what)
		if k != nil && k.Path != d.c.Private() {
			errs = append(errs, d.doom(k.Path))
		}
		errs = append(errs, forget(d.host, d.c.ID, what))
	}
	return errors.Join(errs...)
}

// sweep removes what was retired. The next command of the container would do
// so, too, and must not be kept waiting: so the lock is free meanwhile, and is
// taken only for what needs more than that.
func (d *destination) sweep(lock *lifecycle.Lock) {
	if len(d.doomed) == 0 {
		return
	}
	lock.Unlock()
	var errs []error
	for _, path := range d.doomed {
		errs = append(errs, os.RemoveAll(path))
	}
	if errors.Join(errs...) == nil {
		return
	}
	if l, err := d.host.Lock(d.c.ID, "vzmigrate --receive"); err == nil {
		_ = d.c.Sweep() // else it is left to the next one
		l.Unlock()
	}
}
