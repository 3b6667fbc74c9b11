package downtime

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/internal/lab"
)

// address is the container's, in the lab's network.
const address = "198.18.77.101"

const (
	alpha = "alpha"
	beta  = "beta"
)

// rig is the lab.
type rig struct {
	lab      *lab.Lab
	programs string
}

// bringUp brings up a fresh lab. What an earlier measurement left is removed;
// a lab in a directory of the user's own is not.
func bringUp(ctx context.Context, c Config) (*rig, error) {
	if _, err := lab.Open(c.Dir); err == nil && c.Dir != DefaultDir {
		return nil, fault.New(fault.Running, "a lab is in %q", c.Dir).
			WithHint("Choose another directory with VZLAB_DIR, or take it down with: vzlab down")
	}
	if err := lab.Down(ctx, c.Dir, false); err != nil {
		return nil, fmt.Errorf("take down earlier lab: %w", err)
	}
	r := &rig{lab: &lab.Lab{Dir: c.Dir}, programs: c.Programs}
	if err := run(r.vzlab(ctx, "up", "2"), nil); err != nil {
		return nil, errors.Join(fmt.Errorf("bring up lab: %w", err), r.takeDown())
	}
	l, err := lab.Open(c.Dir)
	if err != nil {
		return nil, errors.Join(err, r.takeDown())
	}
	r.lab = l
	return r, nil
}

// takeDown goes on where the context of the measurement has ended.
func (r *rig) takeDown() error { return lab.Down(context.Background(), r.lab.Dir, true) }

func (r *rig) program(name string) string { return filepath.Join(r.programs, name) }

func (r *rig) vzlab(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, r.program("vzlab"), append([]string{"--dir", r.lab.Dir}, args...)...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 30 * time.Second
	return cmd
}

// on is a command on a host.
func (r *rig) on(ctx context.Context, host string, argv ...string) *exec.Cmd {
	return r.vzlab(ctx, append([]string{"exec", host, "--"}, argv...)...)
}

// sh runs a shell script on a host. Words in capitals are replaced by vars.
func (r *rig) sh(ctx context.Context, host, script string, vars ...string) error {
	script = strings.NewReplacer(vars...).Replace(script)
	return run(r.on(ctx, host, "bash", "-ec", script), nil)
}

// run runs a command to its end. Its output is the error's text if it fails.
func run(cmd *exec.Cmd, stdout io.Writer) error {
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

// dial connects to a port of the container, as a client on admin.
func (r *rig) dial(ctx context.Context, port int) (net.Conn, error) {
	admin, err := r.lab.Host(lab.Admin)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return admin.Dial(ctx, "tcp", fmt.Sprintf("%s:%d", address, port))
}

// host is one of the lab's, which has them all.
func (r *rig) host(name string) *lab.Host {
	h, err := r.lab.Host(name)
	if err != nil {
		panic(err)
	}
	return h
}

// limit bounds what each host sends to that many bits a second; 0 lifts it.
func (r *rig) limit(ctx context.Context, bits int64) error {
	script := "tc qdisc del dev eth0 root 2>/dev/null || true"
	if bits > 0 {
		script = "tc qdisc replace dev eth0 root tbf rate RATEbit burst 256k latency 50ms"
	}
	for _, host := range []string{alpha, beta} {
		if err := r.sh(ctx, host, script, "RATE", fmt.Sprint(bits)); err != nil {
			return err
		}
	}
	return nil
}
