// Package files measures what it takes to move a container's files: vzmigrate's
// passes over them beside rsync of the same tree, over the same hosts of a lab,
// the same SSH server and the same cipher.
//
// vzkit's programs are driven as a user would; what they took is in the report
// of `vzmigrate --json`. rsync is timed from its start to its end, over an SSH
// connection that is up before. Bytes are counted at the source's interface,
// both ways, for either of them. Each host has an ext4 of its own, fresh for
// each play (see cases.go). The page cache is warm and what was written before is on disk; nobody waits for the disk afterwards, unless the program
// itself does. Who goes first changes from run to run.
//
// After each transfer, outside of its time, rsync compares the two trees by
// content; where they differ there is no figure of that run. Times are
// milliseconds, sizes bytes unless a name says else.
package files

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"

	"github.com/vzkit/vzkit/bench"
	"github.com/vzkit/vzkit/bench/hosts"
	"github.com/vzkit/vzkit/bench/report"
)

// Config says what is measured.
type Config struct {
	Cases       []string  // names; see Names
	Runs        int       // of each; the long ones are done once for each three
	Scale       float64   // 1 is the number and size of files that figures are asked for
	MigrateArgs []string  // more arguments of vzmigrate
	Dir         string    // state directory of the lab
	Programs    string    // directory of vzkit's programs
	Progress    io.Writer // gets a line a run
}

// Result is what was measured, and the object of `vzbench files --json`.
type Result struct {
	Env    bench.Env    `json:"env"`
	Rsync  string       `json:"rsync"` // version
	Cipher string       `json:"cipher"`
	Scale  float64      `json:"scale"`
	Args   []string     `json:"vzmigrate_args"`
	Rows   []report.Row `json:"rows"`
	Runs   []Run        `json:"runs"`
	// Failed says which cases were given up, and why.
	Failed []string `json:"failed"`
}

// Measure runs all cases. One that fails does not keep the others from being
// measured. Nothing is left of the lab.
func Measure(ctx context.Context, c Config) (result Result, err error) {
	if err := c.Check(); err != nil {
		return result, err
	}
	result = Result{
		Env: bench.Environment(ctx), Rsync: rsyncVersion(ctx), Cipher: cipher, Scale: c.Scale, Args: c.MigrateArgs,
		Rows: []report.Row{}, Runs: []Run{}, Failed: []string{},
	}
	// The client outside never waits for another goroutine of this process.
	runtime.GOMAXPROCS(max(runtime.GOMAXPROCS(0), 8))
	for _, p := range plays {
		if c.plays(p) && ctx.Err() == nil {
			err = errors.Join(err, result.measure(ctx, c, p))
		}
	}
	result.Rows = Rows(result.Runs)
	return result, errors.Join(context.Cause(ctx), err)
}

// measure plays in a lab of its own: what others left on the disk does not
// matter then. What fails in it is noted; an error is of the lab.
func (r *Result) measure(ctx context.Context, c Config, p play) error {
	fmt.Fprintf(c.Progress, "%s: making ready\n", p.name)
	lab, err := hosts.BringUp(ctx, hosts.Config{Dir: c.Dir, Programs: c.Programs, Need: c.need(p), Log: c.Progress})
	if err != nil {
		return fmt.Errorf("%s: %w", p.name, err)
	}
	r.Env.FileSystem = lab.FileSystem
	runs, err := (&stage{lab, c}).play(ctx, p)
	r.Runs = append(r.Runs, runs...)
	if err != nil && ctx.Err() == nil {
		text := fmt.Sprintf("%s: %v", p.name, err)
		r.Failed = append(r.Failed, text)
		fmt.Fprintln(c.Progress, text)
	}
	return lab.TakeDown()
}

// Check is an error if a case failed.
func (r Result) Check() error {
	if len(r.Failed) > 0 {
		return fmt.Errorf("%d measurements failed", len(r.Failed))
	}
	return nil
}
