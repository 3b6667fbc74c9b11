package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/vzkit/vzkit/internal/copytree"
	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/lifecycle"
)

// set changes what a container has. Until more can be set, that is the size of
// its image.
func (v *vzctl) set() *cobra.Command {
	var space string
	var save bool
	cmd := v.command("set", "Change the size of a container's image, while it runs too", func(ctx context.Context, c *lifecycle.Container) error {
		if space == "" {
			return fault.New(fault.Usage, "nothing to set").WithHint("--diskspace SIZE --save sets the size of the container's image.")
		}
		if !save {
			return fault.New(fault.Usage, "--diskspace needs --save").WithHint("An image keeps the size that it is given.")
		}
		size, err := lifecycle.ParseDiskSpace(space)
		if err != nil {
			return err
		}
		if err := c.Resize(ctx, size); err != nil {
			return err
		}
		v.say("Container %d has %s of disk space.", c.ID, mebibytes(size))
		return nil
	})
	cmd.Long = `Change the size of the image of a container with --layout image.

A container that runs or is mounted keeps running. Its image grows as it is, which
needs CAP_SYS_RESOURCE. It becomes smaller by blocks that it may not have; they take
no space on the host, and the next change while it is unmounted removes them. Less
than the container uses is refused.`
	f := cmd.Flags()
	f.StringVar(&space, "diskspace", "", "size: KiB, or with K, M, G or T behind it")
	f.BoolVar(&save, "save", false, "keep it in the container's config; needed")
	return cmd
}

func (v *vzctl) compact() *cobra.Command {
	cmd := v.command("compact", "Give the disk space that a container has deleted back to the host", func(ctx context.Context, c *lifecycle.Container) error {
		freed, err := c.Compact(ctx)
		if err != nil {
			return err
		}
		if c.Layout() != lifecycle.LayoutImage {
			v.say("Container %d has the layout dir: there is nothing to compact.", c.ID)
			return nil
		}
		v.say("Container %d: %s given back.", c.ID, mebibytes(freed))
		return nil
	})
	cmd.Long = `Give the disk space that a container has deleted back to the host. The container may
run. Containers with --layout dir do so at once, so that there is nothing to do.`
	return cmd
}

func (v *vzctl) convert() *cobra.Command {
	var layout, space string
	cmd := v.command("convert", "Give a stopped container another layout", func(ctx context.Context, c *lifecycle.Container) error {
		to, err := lifecycle.ParseLayout(layout)
		if err != nil {
			return err
		}
		var size int64
		if space != "" {
			if to == lifecycle.LayoutDir {
				return fault.New(fault.Usage, "--diskspace is for --layout image")
			}
			if size, err = lifecycle.ParseDiskSpace(space); err != nil {
				return err
			}
		}
		if err := c.Convert(ctx, to, size, copytree.Copier{}); err != nil {
			return err
		}
		v.say("Container %d has the layout %s.", c.ID, to)
		return nil
	})
	cmd.Long = `Give a stopped, unmounted container another layout. Its files are copied beside the
old ones, with all that belongs to them, and take their place in one step. If that is
interrupted at any moment, the next command finds the container whole, as it was or
as it was to be.`
	f := cmd.Flags()
	f.StringVar(&layout, "layout", "image", layoutHelp)
	f.StringVar(&space, "diskspace", "", "size of an image; default: DISKSPACE of the config, or as much as is needed, at least 10G")
	return cmd
}

const layoutHelp = "how its files are kept: dir (simfs), a directory, or image (ploop), a file system of its own in a file"
