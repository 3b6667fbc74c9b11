package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/renameio/v2"
	"github.com/spf13/cobra"

	"github.com/vzkit/vzkit/bench/downtime"
	"github.com/vzkit/vzkit/bench/hosts"
	"github.com/vzkit/vzkit/internal/fault"
)

func (v *vzbench) downtime() *cobra.Command {
	c := downtime.Config{Dir: os.Getenv("VZLAB_DIR"), Progress: v.stderr}
	if c.Dir == "" {
		c.Dir = hosts.DefaultDir
	}
	var jsonFile, migrateArgs string
	cmd := &cobra.Command{
		Use:   "downtime",
		Short: "Measure how long containers stand still when they move",
		Long: `Bring up a lab of two hosts, move containers to and fro between them, and
measure how long each stands still: seen by a TCP client outside that sends a
message a millisecond, by a ticker inside, and by vzmigrate's own clock; beside
that what the move costs in throughput, memory and bytes. The peer's way,
` + "`runc checkpoint`, rsync and `runc restore`" + `, is measured the same way. After
each move all memory is checked; where anything was lost there is no figure.

Each host has a fresh ext4 of its own, in a sparse file on a loop device in the
lab's directory; where there are no loop devices the hosts share what that
directory is on.

The lab's directory is $VZLAB_DIR or ` + hosts.DefaultDir + `; at the end the lab
is taken down. The programs are those beside this one. The peer is installed
by scripts/setup bench.

Workloads:

` + downtime.Describe(),
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c.MigrateArgs = strings.Fields(migrateArgs)
			return v.measureDowntime(cmd.Context(), c, jsonFile)
		},
	}
	f := cmd.Flags()
	f.StringSliceVar(&c.Workloads, "workload", downtime.Quick, "workloads, comma-separated")
	f.IntVar(&c.Runs, "runs", 20, "moves of each workload")
	f.StringVar(&c.Peer, "peer", downtime.PeerRunc, "what to compare with: runc or none")
	f.IntVar(&c.PeerRuns, "peer-runs", 3, "moves of each workload with the peer")
	f.StringVar(&migrateArgs, "vzmigrate-args", "", "more arguments for vzmigrate, separated by blanks")
	f.StringVar(&jsonFile, "json", "", "write the result to this file as a JSON object; - is standard output")
	return cmd
}

func (v *vzbench) measureDowntime(ctx context.Context, c downtime.Config, jsonFile string) error {
	return v.measure(c.Check, jsonFile, func(programs string) (measured, int, error) {
		c.Programs = programs
		result, err := downtime.Measure(ctx, c)
		return result, len(result.Runs), err
	})
}

// measured is the result of a benchmark.
type measured interface {
	Check() error // of the figures
	Print(w io.Writer)
}

// measure runs a benchmark with the programs in a directory, and puts out what
// it gives, if there were any runs. What check refuses has no side effect.
func (v *vzbench) measure(check func() error, jsonFile string, run func(programs string) (result measured, runs int, err error)) error {
	if err := check(); err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return fault.New(fault.Permission, "needs root").WithHint("Run it as root, or with sudo.")
	}
	if err := hosts.OwnMounts(); err != nil {
		return err
	}
	program, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find own program: %w", err)
	}
	out, text, err := v.benchOutput(jsonFile)
	if err != nil {
		return err
	}
	defer out.discard()
	result, runs, err := run(filepath.Dir(program))
	if runs == 0 {
		return errors.Join(err, result.Check())
	}
	result.Print(text)
	return errors.Join(err, out.write(result), result.Check())
}

// jsonOutput is where the object goes: a file that appears when it is whole,
// standard output, or nowhere.
type jsonOutput struct {
	w       io.Writer
	pending *renameio.PendingFile
}

// benchOutput opens the output for the object, and says where the text goes.
func (v *vzbench) benchOutput(file string) (out jsonOutput, text io.Writer, err error) {
	switch file {
	case "":
		return out, v.stdout, nil
	case "-":
		return jsonOutput{w: v.stdout}, v.stderr, nil
	}
	pending, err := renameio.NewPendingFile(file, renameio.WithPermissions(0o644))
	if err != nil {
		return out, nil, fmt.Errorf("create JSON file: %w", err)
	}
	return jsonOutput{w: pending, pending: pending}, v.stdout, nil
}

func (o jsonOutput) discard() {
	if o.pending != nil {
		o.pending.Cleanup()
	}
}

func (o jsonOutput) write(result any) error {
	if o.w == nil {
		return nil
	}
	if err := writeBenchJSON(o.w, result); err != nil {
		return fmt.Errorf("write JSON result: %w", err)
	}
	if o.pending == nil {
		return nil
	}
	return o.pending.CloseAtomicallyReplace()
}
