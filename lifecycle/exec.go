package lifecycle

import (
	"context"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/lifecycle/launch"
)

// Command prepares argv to run in the running container, as its root and in
// its cgroup. Standard streams are the caller's to set.
func (c *Container) Command(ctx context.Context, argv []string) (*exec.Cmd, error) {
	if err := c.CheckOwned(); err != nil {
		return nil, err
	}
	init := c.Init()
	if init == 0 {
		return nil, fault.New(fault.NotRunning, "container %d is not running", c.ID).WithHint("vzctl start %d first.", c.ID)
	}
	if err := c.checkThawed(); err != nil {
		return nil, err
	}
	return launch.Command(ctx, c.ID, init, argv)
}

// checkThawed refuses to put a process into a container that stands still: it
// would stand still, too.
func (c *Container) checkThawed() error {
	z, err := c.Freezer()
	if err != nil {
		return err
	}
	if frozen, err := z.Frozen(); err != nil || !frozen {
		return err
	}
	return fault.New(fault.Locked, "container %d stands still", c.ID).
		WithHint("It is being moved, or was left so by a move that was killed: then vzctl start lets it run on.")
}

// outputDelay is how long Exec waits for output after the command has ended;
// a daemon that it left behind may hold the pipe open for ever.
const outputDelay = 200 * time.Millisecond

// Exec runs argv in the container and returns its exit status. The command
// gets pipes, never the caller's own descriptors: a file of the host that a
// daemon keeps open could not be checkpointed.
func (c *Container) Exec(ctx context.Context, argv []string, stdin io.Reader, stdout, stderr io.Writer) (int, error) {
	cmd, err := c.Command(ctx, argv)
	if err != nil {
		return 0, err
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		return 0, fault.New(fault.Other, "pipe to container %d: %w", c.ID, err)
	}
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = writerOnly{stdout}, writerOnly{stderr}, outputDelay
	if err := cmd.Start(); err != nil {
		return 0, fault.New(fault.Other, "run command in container %d: %w", c.ID, err)
	}
	go func() { // ends with the caller's input, which may outlast the command
		if stdin != nil {
			_, _ = io.Copy(in, stdin)
		}
		in.Close()
	}()
	if err := cmd.Wait(); err != nil && cmd.ProcessState == nil {
		return 0, fault.New(fault.Other, "wait for command in container %d: %w", c.ID, err)
	}
	return exitStatus(cmd.ProcessState), nil
}

// exitStatus is a process's status as a shell gives it: 128 and the number of
// the signal that killed it.
func exitStatus(p *os.ProcessState) int {
	if ws, ok := p.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return p.ExitCode()
}

// writerOnly hides that a writer is a file, and takes nil as a void.
type writerOnly struct{ w io.Writer }

func (o writerOnly) Write(p []byte) (int, error) {
	if o.w == nil {
		return len(p), nil
	}
	return o.w.Write(p)
}
