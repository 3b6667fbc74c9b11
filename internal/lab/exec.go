package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// Exit statuses that are not the command's own, as env(1) has them.
const (
	statusLab      = 125
	statusNoAccess = 126
	statusNotFound = 127
)

// Run starts cmd, passes this process's signals on to it, waits, and returns
// its exit status as a shell would: 128+n for a command that signal n ended.
// With an error the command did not run and the status says why.
func Run(cmd *exec.Cmd) (status int, err error) {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, passedOn()...)
	defer signal.Stop(signals)
	if err := cmd.Start(); err != nil {
		return startStatus(err), err
	}
	ended := make(chan struct{})
	passed := make(chan struct{})
	go func() {
		defer close(passed)
		for {
			select {
			case s := <-signals:
				_ = cmd.Process.Signal(s)
			case <-ended:
				return
			}
		}
	}()
	err = cmd.Wait()
	close(ended)
	<-passed
	if cmd.ProcessState == nil {
		return statusLab, err
	}
	if ws := cmd.ProcessState.Sys().(syscall.WaitStatus); ws.Signaled() {
		return 128 + int(ws.Signal()), nil
	}
	return cmd.ProcessState.ExitCode(), nil
}

// passedOn lists the signals that are passed on. Those of the keyboard are not
// where there is one: the terminal sends them to the command itself.
func passedOn() []os.Signal {
	list := []os.Signal{syscall.SIGHUP, syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGUSR2}
	if !term.IsTerminal(int(os.Stdin.Fd())) {
		return append(list, syscall.SIGINT, syscall.SIGQUIT)
	}
	return list
}

func startStatus(err error) int {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, exec.ErrNotFound):
		return statusNotFound
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.ENOEXEC):
		return statusNoAccess
	}
	return statusLab
}

// enter is the helper behind Host.Command. It runs argv on the host, with its
// own streams and environment, and returns the exit status. It ends, and so does
// the command, with the process that wants it.
func enter(h *Host, caller string, argv []string) int {
	if len(argv) == 0 {
		fmt.Fprintln(os.Stderr, "vzlab: no command to run")
		return statusLab
	}
	if err := endWith(caller); err != nil {
		fmt.Fprintf(os.Stderr, "vzlab: caller %q: %v\n", caller, err)
		return statusLab
	}
	runtime.LockOSThread() // the one that changes its namespaces, and forks
	if err := h.enter(); err != nil {
		fmt.Fprintf(os.Stderr, "vzlab: enter host: %v\n", err)
		return statusLab
	}
	status, err := runMortal(argv)
	if err != nil {
		fmt.Fprintf(os.Stderr, "vzlab: %v\n", err)
	}
	return status
}

// endWith ends this process when its parent does, which must be caller. A death
// signal would come with the end of the thread that began this process, and Go
// ends a thread with the goroutine that was locked to it (runtime.LockOSThread).
func endWith(caller string) error {
	pid, err := strconv.Atoi(caller)
	if err != nil {
		return err
	}
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return err
	}
	if os.Getppid() != pid { // that pid is another's by now
		return unix.ESRCH
	}
	go func() {
		for {
			n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, -1)
			if n == 1 || err != nil && !errors.Is(err, unix.EINTR) {
				os.Exit(statusLab)
			}
		}
	}()
	return nil
}

// runMortal runs argv so that it dies with the calling thread. SysProcAttr's
// Pdeathsig compares parent pids, which makes no sense across pid namespaces;
// setpriv(1) of util-linux does it instead.
func runMortal(argv []string) (status int, err error) {
	path, err := exec.LookPath(argv[0])
	if err != nil {
		return startStatus(err), err
	}
	cmd := exec.Command("setpriv", append([]string{"--pdeathsig", "KILL", "--", path}, argv[1:]...)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	return Run(cmd)
}

// enter puts the process into the host's cgroups and the calling thread, which
// must be locked, into its namespaces; children of the thread are then in its
// pid namespace too (setns(2)).
func (h *Host) enter() error {
	pid := h.Pid()
	if pid == 0 {
		return h.down()
	}
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return err
	}
	defer unix.Close(pidfd)
	if h.Pid() != pid {
		return h.down()
	}
	root, err := os.Open(fmt.Sprintf("/proc/%d/root", pid))
	if err != nil {
		return err
	}
	defer root.Close()
	wd, _ := os.Getwd()
	g, err := h.leafGroup()
	if err != nil {
		return err
	}
	if err := g.Join(os.Getpid()); err != nil {
		return err
	}
	if err := setNamespaces(pidfd); err != nil {
		return fmt.Errorf("join namespaces: %w", err)
	}
	// The mount namespace's root is not the host's if the lab is in a chroot.
	if err := errors.Join(unix.Fchdir(int(root.Fd())), unix.Chroot(".")); err != nil {
		return err
	}
	if os.Chdir(wd) != nil {
		return os.Chdir("/")
	}
	return nil
}

// setNamespaces moves the calling thread into all namespaces of a host. A
// mount namespace takes only a thread whose root and working directory are no
// other thread's.
func setNamespaces(pidfd int) error {
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return err
	}
	return unix.Setns(pidfd, hostFlags|unix.CLONE_NEWCGROUP)
}
