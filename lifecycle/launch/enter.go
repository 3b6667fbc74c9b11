package launch

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/vzkit/vzkit/lifecycle/cgroup"
)

// Environment is what a command or an init inside a container starts with.
var Environment = []string{
	"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
	"HOME=/root", "TERM=linux", "container=lxc",
}

// selfFD is the descriptor at which the program itself goes along into the
// container, where its path does not lead to it.
const selfFD = 3

var selfPath = fmt.Sprintf("/proc/self/fd/%d", selfFD)

// Command runs argv in the container whose init is pid, as the container's
// root, in its cgroup ctid and in a session of its own. The way there:
//
//	vz-enter   joins the cgroups, then becomes
//	nsenter(1) joins the namespaces (a Go program has threads, and a threaded
//	           process may not join a user namespace, setns(2)), forks
//	vz-run     begins a session inside, so that a daemon it leaves behind can
//	           be checkpointed, then becomes argv
//
// A container's root cannot write to the program that came along: it belongs
// to a user that its namespace does not have.
func Command(ctx context.Context, ctid uint32, pid int, argv []string) (*exec.Cmd, error) {
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		return nil, fmt.Errorf("open own program: %w", err)
	}
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Args = append([]string{enterName, strconv.FormatUint(uint64(ctid), 10), strconv.Itoa(pid)}, argv...)
	cmd.Env = Environment
	cmd.Dir = "/"
	cmd.ExtraFiles = []*os.File{self}
	return cmd, nil
}

func enter() {
	err := becomeNsenter(os.Args[1], os.Args[2], os.Args[3:])
	fmt.Fprintln(os.Stderr, "vzctl:", err)
	os.Exit(notRun)
}

func becomeNsenter(ctid, pid string, argv []string) error {
	id, err := strconv.ParseUint(ctid, 10, 32)
	if err != nil {
		return fmt.Errorf("container id %q: %w", ctid, err)
	}
	g, err := cgroup.Open(uint32(id))
	if err != nil {
		return err
	}
	if err := g.Join(os.Getpid()); err != nil {
		return err
	}
	nsenter, err := exec.LookPath("nsenter")
	if err != nil {
		return err
	}
	if err := closeFrom(selfFD + 1); err != nil {
		return err
	}
	if err := dieWithParent(); err != nil {
		return err
	}
	args := append([]string{nsenter, "--target", pid, "--user", "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--time",
		"--root", "--wd", "--setuid", "0", "--setgid", "0", "--", selfPath, runName}, argv...)
	return fmt.Errorf("exec %q: %w", nsenter, syscall.Exec(nsenter, args, os.Environ()))
}

// dieWithParent has the command end with whoever waits for it; what it forks
// does not (PR_SET_PDEATHSIG outlives execve, not fork).
func dieWithParent() error {
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return fmt.Errorf("tie to caller: %w", err)
	}
	return nil
}

// notRun is the exit status of a command that could not be run, as a shell's.
const notRun = 127

func run(argv []string) {
	err := becomeCommand(argv)
	fmt.Fprintln(os.Stderr, "vzctl:", err)
	os.Exit(notRun)
}

func becomeCommand(argv []string) error {
	unix.CloseOnExec(selfFD)
	if _, err := unix.Setsid(); err != nil {
		return fmt.Errorf("begin session: %w", err)
	}
	if err := dieWithParent(); err != nil {
		return err
	}
	path, err := exec.LookPath(argv[0])
	if err != nil {
		return err
	}
	return fmt.Errorf("exec %q: %w", path, syscall.Exec(path, argv, os.Environ()))
}
