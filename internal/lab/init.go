package lab

import (
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vzkit/vzkit/lifecycle/cgroup"
)

// A host's init and the helper behind Host.Command are this program again,
// under these names. The arguments are HOST DIR, and for the helper the pid that
// it is to end with and its command.
const (
	bootArg0 = "vzlab-boot" // init, first stage
	hostArg0 = "vzlab-host" // init, second stage
	execArg0 = "vzlab-exec"
)

// What passes between the starter of a host and its init, and where.
const (
	goFD     = 3 // init reads goByte: cgroups and network are there
	statusFD = 4 // init writes statusOK or what went wrong
	switchFD = 5 // held open: keeps the namespace of the bridge

	goByte   = 'g'
	statusOK = "ok"
)

// Init turns the process into a host's init or into the helper that enters a
// host, if it was started as one; it does not return then. Else it does
// nothing. Programs that bring up a lab call it before anything else.
func Init() {
	if len(os.Args) < 3 || os.Args[0] == execArg0 && len(os.Args) < 4 {
		return
	}
	h := &Host{lab: &Lab{Dir: os.Args[2]}, name: os.Args[1]}
	var err error
	switch os.Args[0] {
	case bootArg0:
		err = report(h.boot1())
	case hostArg0:
		err = h.boot2()
	case execArg0:
		os.Exit(enter(h, os.Args[3], os.Args[4:]))
	default:
		return
	}
	fmt.Fprintf(os.Stderr, "%s: %v\n", os.Args[0], err)
	os.Exit(1)
}

// boot1 is the first stage: wait until this process is in its cgroups, make
// them the root of a new cgroup namespace, mount what the host is to see, and
// go on with a process all of whose threads are in that namespace. It returns
// only on error.
func (h *Host) boot1() error {
	runtime.LockOSThread()
	release := make([]byte, 1)
	if n, _ := unix.Read(goFD, release); n != 1 || release[0] != goByte {
		return errors.New("starter is gone")
	}
	_ = unix.Close(goFD)
	hs, err := cgroup.Hierarchies()
	if err != nil {
		return err
	}
	if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil {
		return fmt.Errorf("unshare cgroup namespace: %w", err)
	}
	syscall.Umask(0o022)
	if err := h.mountAll(hs); err != nil {
		return err
	}
	if err := unix.CloseRange(switchFD+1, math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("mark inherited descriptors: %w", err)
	}
	return syscall.Exec("/proc/self/exe", append([]string{hostArg0}, os.Args[1:]...), os.Environ())
}

// boot2 is the second stage, pid 1 of the host. It returns only on error.
func (h *Host) boot2() error {
	unix.CloseOnExec(statusFD)
	unix.CloseOnExec(switchFD)
	sshd, err := h.prepareDaemon()
	if err := report(err); err != nil {
		return err
	}
	return sshd.supervise()
}

// report tells the starter how the boot went, and returns err.
func report(err error) error {
	text := statusOK
	if err != nil {
		text = err.Error()
	}
	if _, e := unix.Write(statusFD, []byte(text)); e != nil {
		err = errors.Join(err, fmt.Errorf("starter is gone: %w", e))
	}
	_ = unix.Close(statusFD)
	return err
}

func (h *Host) prepareDaemon() (*daemon, error) {
	if err := errors.Join(os.Chdir("/"), unix.Sethostname([]byte(h.name)), settle()); err != nil {
		return nil, err
	}
	return newDaemon(h)
}

// daemon is the host's sshd.
type daemon struct {
	path string
	args []string
	pid  int
}

func newDaemon(h *Host) (*daemon, error) {
	path, err := sshdPath()
	if err != nil {
		return nil, err
	}
	args := []string{path, "-f", h.path("sshd_config")}
	// All of a lab's logins come from a few addresses, which OpenSSH 9.8 and
	// later would begin to refuse.
	option := []string{"-o", "PerSourcePenalties=no"}
	if exec.Command(path, append(append([]string{"-t"}, args[1:]...), option...)...).Run() == nil {
		args = append(args, option...)
	}
	return &daemon{path: path, args: append(args, "-D", "-E", h.path("sshd.log"))}, nil
}

// restartPause lets the last one's children close its sockets, and keeps an
// sshd that cannot start from being started without end.
const restartPause = 100 * time.Millisecond

// supervise keeps sshd running, reaps what the host orphans, and ends with
// SIGTERM, whereupon the kernel kills the host.
func (d *daemon) supervise() error {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM)
	ended := make(chan error)
	for {
		if err := d.start(); err != nil {
			return err
		}
		go func() { ended <- d.reap() }()
		if err := d.watch(signals, ended); err != nil {
			return err
		}
		time.Sleep(restartPause)
	}
}

func (d *daemon) watch(signals <-chan os.Signal, ended <-chan error) error {
	for {
		select {
		case err := <-ended:
			return err
		case s := <-signals:
			switch s {
			case syscall.SIGHUP:
				// Not SIGHUP: sshd would listen again at once, and go without an
				// address whose old socket a child has not closed yet.
				_ = syscall.Kill(d.pid, syscall.SIGTERM)
			case syscall.SIGTERM:
				return errors.New("terminated")
			}
		}
	}
}

func (d *daemon) start() error {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	p, err := os.StartProcess(d.path, d.args, &os.ProcAttr{Env: os.Environ(), Files: []*os.File{null, null, os.Stderr}})
	if err != nil {
		return fmt.Errorf("start sshd: %w", err)
	}
	d.pid = p.Pid
	return p.Release()
}

// reap waits for children of any kind until sshd is among them.
func (d *daemon) reap() error {
	for {
		pid, err := syscall.Wait4(-1, nil, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return fmt.Errorf("wait: %w", err)
		case pid == d.pid:
			return nil
		}
	}
}
