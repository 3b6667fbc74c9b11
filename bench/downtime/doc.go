// Package downtime measures how long a container stands still while it moves
// between two hosts, and what else the move costs: throughput, memory, bytes.
//
// Each run is seen by three clocks side by side: a client outside that sends a
// message a millisecond (package probe), a ticker inside (package hog), and
// the pipeline's own. The hosts are those of a lab that is brought up for it;
// vzkit's programs are driven as a user would. The peer, `runc checkpoint`,
// rsync and `runc restore` of the same workload, is seen by the same probes.
//
// After every run all memory is checked; where anything was lost the workload is
// given up, and there is no figure of that run. Times are milliseconds, sizes bytes unless a name says else.
package downtime

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"

	"github.com/vzkit/vzkit/bench"
	"github.com/vzkit/vzkit/bench/hosts"
	"github.com/vzkit/vzkit/bench/report"
	"github.com/vzkit/vzkit/internal/fault"
)

// Peers.
const (
	PeerNone = "none"
	PeerRunc = "runc"
)

// Config says what is measured.
type Config struct {
	Workloads   []string  // names; see Names
	Runs        int       // of each
	Peer        string    // PeerNone or PeerRunc
	PeerRuns    int       // of each workload with the peer
	MigrateArgs []string  // more arguments of vzmigrate
	Dir         string    // state directory of the lab
	Programs    string    // directory of vzkit's programs
	Progress    io.Writer // gets a line a run
}

const maxRuns = 10_000

// need is what the largest workload takes, which is PostgreSQL's, and the
// containers of two movers.
var need = hosts.Need{Bytes: 12 * gib, Inodes: 500_000}

// Check refuses what cannot be measured.
func (c Config) Check() error {
	for _, name := range c.Workloads {
		if _, err := find(name); err != nil {
			return err
		}
	}
	if len(c.Workloads) == 0 {
		return fault.New(fault.BadValue, "no workload").WithHint("Choose from %s.", Names())
	}
	if c.Peer != PeerNone && c.Peer != PeerRunc {
		return fault.New(fault.BadValue, "peer %q unknown", c.Peer).WithHint("It is %s or %s.", PeerRunc, PeerNone)
	}
	for _, n := range []int{c.Runs, c.PeerRuns} {
		if n < 1 || n > maxRuns {
			return fault.New(fault.BadValue, "number of runs %d out of range", n).WithHint("Give 1 to %d.", maxRuns)
		}
	}
	return nil
}

// Result is what was measured, and the object of `vzbench downtime --json`.
type Result struct {
	Env  bench.Env    `json:"env"`
	Args []string     `json:"vzmigrate_args"`
	Rows []report.Row `json:"rows"`
	Runs []Run        `json:"runs"`
	// Failed says which workloads were given up, and why.
	Failed []string `json:"failed"`
}

// Measure runs all workloads. One that fails does not keep the others from
// being measured. Nothing is left of the lab.
func Measure(ctx context.Context, c Config) (result Result, err error) {
	result = Result{Env: bench.Environment(ctx), Args: c.MigrateArgs}
	if err := c.Check(); err != nil {
		return result, err
	}
	// The client outside never waits for another goroutine of this process.
	runtime.GOMAXPROCS(max(runtime.GOMAXPROCS(0), 8))
	lab, err := hosts.BringUp(ctx, hosts.Config{Dir: c.Dir, Programs: c.Programs, Need: need, Log: c.Progress})
	if err != nil {
		return result, err
	}
	result.Env.FileSystem = lab.FileSystem
	r := &rig{lab}
	for _, s := range series(c, r) {
		runs, err := s.measure(ctx, c.Progress)
		result.Runs = append(result.Runs, runs...)
		if err != nil {
			text := fmt.Sprintf("%s with %s: %v", s.workload.name, s.mover.name(), err)
			result.Failed = append(result.Failed, text)
			fmt.Fprintln(c.Progress, text)
		}
	}
	result.Rows = Rows(result.Runs)
	return result, errors.Join(context.Cause(ctx), r.TakeDown())
}

// Check is an error if a workload failed.
func (r Result) Check() error {
	if len(r.Failed) > 0 {
		return fmt.Errorf("%d measurements failed", len(r.Failed))
	}
	return nil
}

// series are those of all workloads, ours before the peer's.
func series(c Config, r *rig) (all []*runs) {
	for _, name := range c.Workloads {
		w, err := find(name)
		if err != nil {
			continue // Check has found them all
		}
		all = append(all, seriesOf(c, r, w)...)
	}
	return all
}

func seriesOf(c Config, r *rig, w workload) []*runs {
	all := []*runs{{rig: r, workload: w, mover: &vzkit{rig: r, args: c.MigrateArgs}, count: c.Runs}}
	if c.Peer == PeerRunc {
		all = append(all, &runs{rig: r, workload: w, mover: &runc{rig: r}, count: c.PeerRuns})
	}
	return all
}
