package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/vishvananda/netns"

	"github.com/vzkit/vzkit/internal/undo"
	"github.com/vzkit/vzkit/lifecycle/cgroup"
)

// How long a running host may take to answer before it counts as broken, and
// a new one before it counts as stillborn.
const (
	runningPatience = 5 * time.Second
	bootPatience    = 20 * time.Second
)

// hostFlags are the namespaces a host is born with. The cgroup namespace comes
// later: its root is the cgroup that the process is in at that moment.
const hostFlags = syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET |
	syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC

// ensure makes sure that the host runs, is plugged in, and answers.
func (h *Host) ensure(ctx context.Context, sw netns.NsHandle, u *undo.Stack) error {
	config, _ := h.sshdConfig()
	if err := writeFile(h.path("sshd_config"), []byte(config), 0o644); err != nil {
		return err
	}
	if pid := h.Pid(); pid != 0 {
		if err := h.mend(ctx, sw, pid); err == nil || ctx.Err() != nil {
			return err
		}
	}
	u.Push("stop host "+h.name, h.stop)
	if err := h.start(sw); err != nil {
		return err
	}
	return h.answers(ctx, bootPatience)
}

// mend puts right what can be put right without a restart.
func (h *Host) mend(ctx context.Context, sw netns.NsHandle, pid int) error {
	if !h.plugged(sw, pid) {
		if err := h.plug(sw, pid); err != nil {
			return err
		}
	}
	_, version := h.sshdConfig()
	if greeting, err := h.greeting(ctx); err == nil && !strings.HasSuffix(greeting, version) {
		if err := syscall.Kill(pid, syscall.SIGHUP); err != nil {
			return err
		}
	}
	return h.answers(ctx, runningPatience)
}

// start boots the host, after removing what an earlier run left of it.
func (h *Host) start(sw netns.NsHandle) error {
	if err := h.stop(); err != nil {
		return err
	}
	for _, dir := range []string{"etc-vz", "var-lib-vz/template"} {
		if err := os.MkdirAll(h.path(dir), 0o755); err != nil {
			return err
		}
	}
	group, err := h.group()
	if err != nil {
		return err
	}
	if err := group.Create(); err != nil {
		return err
	}
	log, err := os.OpenFile(h.path("init.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	return h.boot(group, log, sw)
}

// boot runs the init through its two stages. It is held in the first, in which
// it does nothing and dies with us, until all that is ours to do is done.
func (h *Host) boot(group *cgroup.Group, log *os.File, sw netns.NsHandle) error {
	goRead, goWrite, err := os.Pipe()
	if err != nil {
		return err
	}
	defer goWrite.Close()
	statusRead, statusWrite, err := os.Pipe()
	if err != nil {
		goRead.Close()
		return err
	}
	defer statusRead.Close()
	pid, err := h.spawn(log, goRead, statusWrite, sw)
	goRead.Close()
	statusWrite.Close()
	if err != nil {
		return fmt.Errorf("start init: %w", err)
	}
	if err := errors.Join(group.Join(pid), h.plug(sw, pid), h.writePid(pid)); err != nil {
		return err
	}
	if _, err := goWrite.Write([]byte{goByte}); err != nil {
		return fmt.Errorf("release init: %w", err)
	}
	report, err := io.ReadAll(io.LimitReader(statusRead, 4096))
	if err != nil || string(report) != statusOK {
		return fmt.Errorf("boot: %q (see %s)", report, log.Name())
	}
	return nil
}

// spawn starts the first stage of the init, with the three descriptors that it
// knows as goFD, statusFD and switchFD.
func (h *Host) spawn(log, goRead, statusWrite *os.File, sw netns.NsHandle) (pid int, err error) {
	swFD, err := syscall.Dup(int(sw))
	if err != nil {
		return 0, err
	}
	swFile := os.NewFile(uintptr(swFD), "switch")
	defer swFile.Close()
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{bootArg0, h.name, h.lab.Dir}
	cmd.Env = baseEnv(h.lab.Bin)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = []*os.File{goRead, statusWrite, swFile}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Cloneflags: hostFlags}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	go cmd.Wait() // reaps it, should it die before us
	return cmd.Process.Pid, nil
}

// stop kills everything in the host and removes its cgroups. Its state
// directories stay. Stopping a stopped host is fine.
func (h *Host) stop() error {
	g, err := h.group()
	if err != nil {
		return err
	}
	if err := g.Kill(); err != nil {
		return err
	}
	return errors.Join(g.Remove(), removeIfThere(h.path("pid")))
}

// Reboot kills everything in the host, without warning to anything in it, and
// starts it again. What /etc/vz and /var/lib/vz hold survives, /run does not.
func (h *Host) Reboot(ctx context.Context) (err error) {
	if err := preflight(h.lab.Dir); err != nil {
		return err
	}
	unlock, err := lock(ctx, h.lab.Dir, false)
	if err != nil {
		return err
	}
	defer unlock()
	sw, err := h.lab.openSwitch()
	if err != nil {
		return err
	}
	defer sw.Close()
	var u undo.Stack
	defer func() { err = errors.Join(err, u.Run()) }()
	u.Push("stop host "+h.name, h.stop)
	if err := h.start(sw); err != nil {
		return fmt.Errorf("reboot %s: %w", h.name, err)
	}
	if err := h.answers(ctx, bootPatience); err != nil {
		return fmt.Errorf("reboot %s: %w", h.name, err)
	}
	u.Keep()
	return nil
}
