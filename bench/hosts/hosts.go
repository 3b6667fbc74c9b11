// Package hosts is the lab that a benchmark has for itself: fresh hosts, vzkit's
// programs run on them as a user would, and the templates that its containers
// are made from. Each host has a file system of its own, as two machines have:
// fresh, so that what earlier measurements have deleted costs nothing. Nothing
// is left of it in the end but templates that took long to build.
package hosts

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/vzkit/vzkit/internal/lab"
	"github.com/vzkit/vzkit/internal/undo"
)

// DefaultDir is the state directory of the lab.
const DefaultDir = "/var/lib/vzlab-bench"

// The hosts between which containers move.
const (
	Alpha = "alpha"
	Beta  = "beta"
)

// Config says what lab a measurement has.
type Config struct {
	Dir      string    // its state directory
	Programs string    // directory of vzkit's programs
	Need     Need      // of the disk
	Log      io.Writer // gets a line if something is not as it should be
}

// Rig is the lab.
type Rig struct {
	Lab        *lab.Lab
	FileSystem string // that the hosts have their containers on, in words
	programs   string
	claim      *os.File
}

// BringUp brings up a fresh lab, each host with a file system of its own. What
// an earlier measurement left is removed; a lab in a directory of the user's
// own is not.
func BringUp(ctx context.Context, c Config) (r *Rig, err error) {
	if c.Dir, err = filepath.Abs(c.Dir); err != nil {
		return nil, err
	}
	if err := mayTake(c.Dir); err != nil {
		return nil, err
	}
	r = &Rig{Lab: &lab.Lab{Dir: c.Dir}, programs: c.Programs}
	if err := r.takeDown(ctx, false); err != nil {
		return nil, fmt.Errorf("take down earlier lab: %w", err)
	}
	if err := c.Need.Check(c.Dir); err != nil {
		return nil, err
	}
	var u undo.Stack
	defer func() { err = errors.Join(err, u.Run()) }()
	u.Push("take lab down", r.TakeDown)
	if err := r.up(ctx, c); err != nil {
		return nil, fmt.Errorf("bring up lab: %w", err)
	}
	u.Keep()
	return r, nil
}

func (r *Rig) up(ctx context.Context, c Config) (err error) {
	if r.claim, err = claim(c.Dir); err != nil {
		return err
	}
	if r.FileSystem, err = mountDisks(ctx, c.Dir, c.Need, c.Log); err != nil {
		return err
	}
	if err := Run(r.vzlab(ctx, "up", "2"), nil); err != nil {
		return err
	}
	l, err := lab.Open(c.Dir)
	if err == nil {
		r.Lab = l
	}
	return err
}

// TakeDown goes on where the context of the measurement has ended.
func (r *Rig) TakeDown() error { return r.takeDown(context.Background(), true) }

func (r *Rig) takeDown(ctx context.Context, all bool) error {
	defer r.claim.Close() // there may be none
	return errors.Join(lab.Down(ctx, r.Lab.Dir, all), released(r.Lab.Dir))
}

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

// Dial connects to a port of a container, as a client on the host admin.
func (r *Rig) Dial(ctx context.Context, address string, port int) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return r.Host(lab.Admin).Dial(ctx, "tcp", net.JoinHostPort(address, strconv.Itoa(port)))
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
