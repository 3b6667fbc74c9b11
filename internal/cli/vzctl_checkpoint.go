package cli

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/vzkit/vzkit/backup"
	"github.com/vzkit/vzkit/dump/track"
	"github.com/vzkit/vzkit/lifecycle"
)

const checkpointHelp = `Write the state of a running container's processes into a directory, as CRIU's
images, which criu restore and crit read. The container runs on. Its memory is
copied while it runs; it stands still only for the rest of it.

DIR must not be there yet, or be empty. It appears when it is complete and on
the disk. Until then the memory is kept in RAM a second time.

The container's files are not part of the checkpoint: to be restored, they must
be as they were. A file that a process has open under a name that is gone is in
the images if it has no other name; else it is in DIR/root, and has to be copied
to the same place in the container's root before (cp -a DIR/root/. ROOT/).

To restore the processes of a container that is stopped, without its network:

    vzctl mount CTID
    criu restore -D DIR --root ROOT --empty-ns net --tcp-close --file-locks \
        --link-remap --manage-cgroups=ignore --restore-detached

where ROOT is what vzctl mount says.`

// checkpoint writes a checkpoint of a running container.
func (v *vzctl) checkpoint() *cobra.Command {
	var o backup.Options
	var asJSON bool
	cmd := v.command("checkpoint", "Write the state of a running container's processes into a directory",
		func(ctx context.Context, c *lifecycle.Container) error {
			o.Note = func(text string) { fmt.Fprintln(v.stderr, "note:", text) }
			o.Rounded = func(r backup.Round) {
				if !v.quiet && !asJSON {
					fmt.Fprintf(v.stderr, "%-8s %10.1f ms %10.1f MiB, %.1f MiB left\n", "memory", r.MS, mebibytesOf(r.Pages), mebibytesOf(r.Dirty))
				}
			}
			report, err := backup.Checkpoint(ctx, c, o)
			if err != nil {
				return err
			}
			if asJSON {
				return json.NewEncoder(v.stdout).Encode(report)
			}
			v.say("Container %d is checkpointed in %s: downtime %.0f ms, total %.1f s, %.1f MiB of memory, %.1f MiB on the disk.",
				c.ID, report.Dir, report.Downtime, report.Total/1e3, mebibytesOf(report.MemoryPages), float64(report.Bytes)/(1<<20))
			return nil
		})
	cmd.Long = checkpointHelp
	f := cmd.Flags()
	f.StringVar(&o.Dir, "dir", "", "directory for the images")
	f.StringVar(&o.Tracker, "tracker", "auto", "how changed memory is found: uffd-wp, soft-dirty, hash, none, or auto: the best there is")
	f.StringVar(&o.Dump, "dump", "auto", "how CRIU leaves memory alone that is copied already: described, stock, or auto")
	f.BoolVar(&o.Verify, "verify-tracking", false, "compare all memory with what was copied, while the container stands still")
	f.BoolVar(&asJSON, "json", false, "print the report as one JSON object")
	return cmd
}

// mebibytesOf is how much so many pages are.
func mebibytesOf(pages uint64) float64 { return float64(pages*track.PageSize) / (1 << 20) }
