package cli

import (
	"context"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/vzkit/vzkit/bench/files"
	"github.com/vzkit/vzkit/bench/hosts"
)

func (v *vzbench) files() *cobra.Command {
	c := files.Config{Dir: os.Getenv("VZLAB_DIR"), Progress: v.stderr}
	if c.Dir == "" {
		c.Dir = hosts.DefaultDir
	}
	var jsonFile, migrateArgs string
	cmd := &cobra.Command{
		Use:   "files",
		Short: "Measure what it takes to move a container's files, beside rsync",
		Long: `Bring up a lab of two hosts, move containers between them, and measure the
passes over their files: time, bytes between the hosts, memory. The same trees
are moved by ` + "`rsync -aHAX --numeric-ids --delete`" + ` over the same SSH servers with
the same cipher. The page cache is warm; who goes first changes from run to run.
After each transfer the trees are compared by content; where they differ there
is no figure.

Each host has a fresh ext4 of its own, in a sparse file on a loop device in the
lab's directory; where there are no loop devices the hosts share what that
directory is on.

The lab's directory is $VZLAB_DIR or ` + hosts.DefaultDir + `; at the end the lab
is taken down. The programs are those beside this one. rsync is installed by
scripts/setup bench.

Cases:

` + files.Describe() + `
The cases of 4 GiB and of 1,000,000 files are run once for each three runs of
the others. The database moves to and fro in each run, with either number of
files beside it; the downtime is vzmigrate's own, and that which a TCP client
outside sees.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c.MigrateArgs = strings.Fields(migrateArgs)
			return v.measureFiles(cmd.Context(), c, jsonFile)
		},
	}
	f := cmd.Flags()
	f.StringSliceVar(&c.Cases, "case", files.Names(), "cases, comma-separated")
	f.IntVar(&c.Runs, "runs", 3, "runs of each case")
	f.Float64Var(&c.Scale, "scale", 1, "number and size of files, of those above")
	f.StringVar(&migrateArgs, "vzmigrate-args", "", "more arguments for vzmigrate, separated by blanks")
	f.StringVar(&jsonFile, "json", "", "write the result to this file as a JSON object; - is standard output")
	return cmd
}

func (v *vzbench) measureFiles(ctx context.Context, c files.Config, jsonFile string) error {
	return v.measure(c.Check, jsonFile, func(programs string) (measured, int, error) {
		c.Programs = programs
		result, err := files.Measure(ctx, c)
		return result, len(result.Runs), err
	})
}

// rewrite is what the benchmark of files runs inside its containers.
func (v *vzbench) rewrite() *cobra.Command {
	var r files.Rewriter
	cmd := &cobra.Command{
		Use: "rewrite", Short: "Rewrite files inside a container that is measured", Args: cobra.NoArgs, Hidden: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := r.Check(); err != nil {
				return err
			}
			if err := detachStdin(v.stdin); err != nil {
				return err
			}
			return r.Run(cmd.Context())
		},
	}
	f := cmd.Flags()
	f.StringVar(&r.Dir, "dir", ".", "root of a generated tree")
	f.IntVar(&r.Files, "files", 0, "files in the tree")
	f.DurationVar(&r.Every, "every", 100*time.Millisecond, "how often each is rewritten")
	return cmd
}
