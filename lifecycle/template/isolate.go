package template

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"runtime"
	"strings"
	"syscall"

	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/internal/mountns"
)

// script is a shell script that a build runs apart from the machine: in mount
// and PID namespaces of its own, so that no mount and no daemon outlives it,
// not even when it is killed. With chroot it sees only the tree.
type script struct {
	text   string
	chroot string
	env    []string
	args   []string
}

// run runs the script and returns its last words in the error. The end of ctx
// and the death of this process kill everything in it.
func (s script) run(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, "/bin/sh", append([]string{"-euc", s.text, "sh"}, s.args...)...)
	cmd.Dir = "/"
	cmd.Env = append([]string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root",
		"LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive", "DEBCONF_NONINTERACTIVE_SEEN=true",
	}, s.env...)
	var said tail
	cmd.Stdout, cmd.Stderr = &said, &said
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Chroot: s.chroot, Pdeathsig: syscall.SIGKILL,
		Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWIPC,
	}
	mountns.Private(cmd.SysProcAttr)
	// The death signal comes when the thread ends, see prctl(2): keep it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%w: %s", err, said.lines(3))
	}
	return nil
}

// tail keeps the end of what is written to it.
type tail struct{ buf []byte }

const maxTail = 8 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.buf = append(t.buf, p...)
	if over := len(t.buf) - maxTail; over > 0 {
		t.buf = append(t.buf[:0], t.buf[over:]...)
	}
	return len(p), nil
}

// lines returns the last n lines that are not empty, on one line.
func (t *tail) lines(n int) string {
	var last []string
	for line := range bytes.Lines(t.buf) {
		if line = bytes.TrimSpace(line); len(line) > 0 {
			last = append(last, string(line))
		}
	}
	return strings.Join(last[max(0, len(last)-n):], "; ")
}

// needTools refuses a build whose programs are not installed.
func needTools(tools map[string]string) error {
	for tool, pkg := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			return fault.New(fault.NoTemplate, "no program %q", tool).WithHint("Install the package %s.", pkg)
		}
	}
	return nil
}
