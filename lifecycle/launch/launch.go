// Package launch starts a container's init in namespaces of its own (user,
// pid, mount, net, uts, ipc, time, cgroup) and runs commands in a running one.
//
// The program re-executes itself: Start clones a child into the new
// namespaces; the child waits until its host side (cgroup, network) is ready,
// builds the mount tree, and becomes the distribution's init. Every program
// that calls Start or Command must call Init first in main.
//
//	parent                          child ("vz-launch")
//	clone(NEWUSER|NEWPID|…)   ──▶   wait on the spec pipe
//	cgroups, veth into netns
//	spec as JSON, close       ──▶   mounts, pivot_root, hostname
//	read status pipe          ◀──   error text, or closed by execve
package launch

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// IDs is how many user and group ids a container has: 0 to 65535 inside.
const IDs = 65536

// Spec says what to start.
type Spec struct {
	Root     string   // mounted root directory, on the host
	Hostname string   // of the uts namespace
	UID, GID uint32   // host ids of the container's root
	Argv     []string // init and its arguments, inside the root
	Env      []string
}

const (
	initName  = "vz-launch"
	enterName = "vz-enter"
	runName   = "vz-run"
	specFD    = 3
	statusFD  = 4
)

// Init must be called first in main. In a re-executed child it does the
// child's work and does not return.
func Init() {
	switch os.Args[0] {
	case initName:
		child()
	case enterName:
		enter()
	case selfPath:
		if len(os.Args) > 2 && os.Args[1] == runName {
			run(os.Args[2:])
		}
	}
}

// Start clones a child for spec, calls host with its pid so that cgroups and
// network can be set up around it, and lets it become init. If host fails or
// the child cannot start init, the child is dead when Start returns.
func Start(spec Spec, host func(pid int) error) (pid int, err error) {
	specR, specW, err := os.Pipe()
	if err != nil {
		return 0, fmt.Errorf("pipe: %w", err)
	}
	defer specR.Close()
	defer specW.Close()
	statusR, statusW, err := os.Pipe()
	if err != nil {
		return 0, fmt.Errorf("pipe: %w", err)
	}
	defer statusR.Close()
	cmd := command(spec, specR, statusW)
	err = cmd.Start()
	statusW.Close()
	if err != nil {
		return 0, fmt.Errorf("clone namespaces: %w", err)
	}
	err = host(cmd.Process.Pid)
	if err == nil {
		err = handOver(spec, specW, statusR)
	}
	if err != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		return 0, err
	}
	pid = cmd.Process.Pid
	return pid, cmd.Process.Release()
}

func command(spec Spec, files ...*os.File) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{initName}
	cmd.Env = []string{}
	cmd.Dir = "/"
	cmd.ExtraFiles = files
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWNET |
			unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWTIME,
		UidMappings:                []syscall.SysProcIDMap{{ContainerID: 0, HostID: int(spec.UID), Size: IDs}},
		GidMappings:                []syscall.SysProcIDMap{{ContainerID: 0, HostID: int(spec.GID), Size: IDs}},
		GidMappingsEnableSetgroups: true,
		Credential:                 &syscall.Credential{Uid: 0, Gid: 0},
		Setsid:                     true,
	}
	return cmd
}

// handOver sends the spec and waits until the child has become init or said
// why not.
func handOver(spec Spec, specW io.WriteCloser, status io.Reader) error {
	if err := json.NewEncoder(specW).Encode(spec); err != nil {
		return fmt.Errorf("send spec: %w", err)
	}
	specW.Close()
	text, err := io.ReadAll(io.LimitReader(status, 4096))
	if err != nil {
		return fmt.Errorf("read launch status: %w", err)
	}
	if len(text) > 0 {
		return errors.New(string(text))
	}
	return nil
}
