// Package files measures what it takes to move a container's files: vzmigrate's
// passes over them beside rsync of the same tree, over the same hosts of a lab,
// the same SSH server and the same cipher.
//
// vzkit's programs are driven as a user would; what they took is in the report
// of `vzmigrate --json`. rsync is timed from its start to its end, over an SSH
// connection that is up before. Bytes are counted at the source's interface,
// both ways, for either of them. The page cache is warm and what was written
// before is on disk; nobody waits for the disk afterwards, unless the program
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
	lab, err := hosts.BringUp(ctx, c.Dir, c.Programs)
	if err != nil {
		return result, err
	}
	s := &stage{Rig: lab, Config: c}
	result.measure(ctx, s)
	result.Rows = Rows(result.Runs)
	return result, errors.Join(context.Cause(ctx), s.TakeDown())
}

// measure plays all scenes that any of the cases needs.
func (r *Result) measure(ctx context.Context, s *stage) {
	for _, p := range plays {
		if !s.plays(p) || ctx.Err() != nil {
			continue
		}
		runs, err := s.play(ctx, p)
		r.Runs = append(r.Runs, runs...)
		if err != nil && ctx.Err() == nil {
			text := fmt.Sprintf("%s: %v", p.name, err)
			r.Failed = append(r.Failed, text)
			fmt.Fprintln(s.Progress, text)
		}
	}
}

// Check is an error if a case failed.
func (r Result) Check() error {
	if len(r.Failed) > 0 {
		return fmt.Errorf("%d measurements failed", len(r.Failed))
	}
	return nil
}
