// Package hosts is the lab that a benchmark has for itself: fresh hosts, vzkit's
// programs run on them as a user would, and the templates that its containers
// are made from. Nothing is left of it in the end but templates that took long
// to build.
package hosts

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/internal/lab"
)

// DefaultDir is the state directory of the lab.
const DefaultDir = "/var/lib/vzlab-bench"

// The hosts between which containers move.
const (
	Alpha = "alpha"
	Beta  = "beta"
)

// Rig is the lab.
type Rig struct {
	Lab      *lab.Lab
	programs string
}

// BringUp brings up a fresh lab in dir, with the programs of a directory. What
// an earlier measurement left is removed; a lab in a directory of the user's
// own is not.
func BringUp(ctx context.Context, dir, programs string) (*Rig, error) {
	if _, err := lab.Open(dir); err == nil && dir != DefaultDir {
		return nil, fault.New(fault.Running, "a lab is in %q", dir).
			WithHint("Choose another directory with VZLAB_DIR, or take it down with: vzlab down")
	}
	if err := lab.Down(ctx, dir, false); err != nil {
		return nil, fmt.Errorf("take down earlier lab: %w", err)
	}
	r := &Rig{Lab: &lab.Lab{Dir: dir}, programs: programs}
	if err := Run(r.vzlab(ctx, "up", "2"), nil); err != nil {
		return nil, errors.Join(fmt.Errorf("bring up lab: %w", err), r.TakeDown())
	}
	l, err := lab.Open(dir)
	if err != nil {
		return nil, errors.Join(err, r.TakeDown())
	}
	r.Lab = l
	return r, nil
}

// TakeDown goes on where the context of the measurement has ended.
func (r *Rig) TakeDown() error { return lab.Down(context.Background(), r.Lab.Dir, true) }

// Program is the path of one of vzkit's programs.
func (r *Rig) Program(name string) string { return filepath.Join(r.programs, name) }

func (r *Rig) vzlab(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, r.Program("vzlab"), append([]string{"--dir", r.Lab.Dir}, args...)...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 30 * time.Second
	return cmd
}

// On is a command on a host.
func (r *Rig) On(ctx context.Context, host string, argv ...string) *exec.Cmd {
	return r.vzlab(ctx, append([]string{"exec", host, "--"}, argv...)...)
}

// Sh runs a shell script on a host. Words in capitals are replaced by vars.
func (r *Rig) Sh(ctx context.Context, host, script string, vars ...string) error {
	script = strings.NewReplacer(vars...).Replace(script)
	return Run(r.On(ctx, host, "bash", "-ec", script), nil)
}

// Host is one of the lab's, which has them all.
func (r *Rig) Host(name string) *lab.Host {
	h, err := r.Lab.Host(name)
	if err != nil {
		panic(err)
	}
	return h
}

// Run runs a command to its end. Its output is the error's text if it fails.
func Run(cmd *exec.Cmd, stdout io.Writer) error {
	var said bytes.Buffer
	if cmd.Stderr = &said; stdout == nil {
		cmd.Stdout = &said
	} else {
		cmd.Stdout = stdout
	}
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args[1:], " "), err, bytes.TrimSpace(said.Bytes()))
	}
	return nil
}
