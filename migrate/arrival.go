package migrate

import (
	"errors"
	"os"

	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/lifecycle"
	"github.com/vzkit/vzkit/lifecycle/image"
	"github.com/vzkit/vzkit/transport/blocks"
)

// chooseWay chooses how the private area is to come: by blocks if the source
// can and the layout stays, and if there is no base, which would spare more. The
// source has compared the image's blocks with its files.
func (d *destination) chooseWay() error {
	defer func() { d.accepted.Way = d.way }()
	d.way = byFiles
	i := d.offer.Image
	if i == nil || d.converts || d.c.Layout() != lifecycle.LayoutImage || d.offer.KeepDst || d.hasBase() {
		return nil
	}
	if i.Size < image.MinSize || i.Size > image.MaxSize {
		return fault.New(fault.Protocol, "image of %d bytes is offered", i.Size)
	}
	d.way = byBlocks
	return nil
}

// makeImage makes the file that is to become the image.
func (d *destination) makeImage() (err error) {
	if d.area, err = d.c.ArrivingArea(d.staging); err != nil {
		return err
	}
	dir, err := os.Open(d.staging)
	if err != nil {
		return fault.New(fault.Copy, "open staging directory: %w", err)
	}
	defer dir.Close()
	d.image, err = blocks.NewTarget(dir, image.File, d.offer.Image.Size)
	return err
}

// finishFiles ends the passes.
func (d *destination) finishFiles() error {
	if d.image != nil {
		return d.image.Finish()
	}
	return d.tree.Finish()
}

// mountImage mounts an image that has come, as it is: in the state of a file
// system that has lost its power just after a sync.
func (d *destination) mountImage() error {
	if d.image == nil {
		return nil
	}
	if err := d.shell.Mount(d.area); err != nil {
		return err
	}
	err := d.worker.Show(d.c.Root())
	d.watch.step("mount image")
	return fault.Wrap(fault.Restore, err)
}

// syncFiles returns when all that has come is on the disk.
func (d *destination) syncFiles() error {
	if d.image != nil {
		return d.image.Sync()
	}
	return d.tree.Sync()
}

// sealFiles ends what is left to do with the files of a container that is here.
func (d *destination) sealFiles() error {
	if d.image != nil {
		return errors.Join(d.image.Sync(), d.image.Close())
	}
	return errors.Join(d.tree.SealRoot(), d.tree.Sync(), d.tree.Close())
}
