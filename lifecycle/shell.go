package lifecycle

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/vzkit/vzkit/freeze"
	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/internal/inject"
	"github.com/vzkit/vzkit/internal/undo"
	"github.com/vzkit/vzkit/lifecycle/network"
)

// Shell is what a container's processes run in on this host: mounted root,
// cgroup and, once there is a first process, its connection. A container that
// starts and one that arrives from another host get the same.
type Shell struct {
	c    *Container
	undo undo.Stack
}

// Prepare makes the shell around private, a private area of the container's
// layout, up to the point where a first process can be made; with private "",
// for an image that is still to come, up to Mount. The shell must be kept or
// closed.
func (c *Container) Prepare(private string) (*Shell, error) {
	s := &Shell{c: c}
	if err := s.prepare(private); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func (s *Shell) prepare(private string) error {
	if s.c.host.global("SKIP_SYSCTL_SETUP", "no", 0) != "yes" {
		if err := network.Forwarding(); err != nil {
			return fault.Wrap(fault.Network, err)
		}
	}
	if private == "" {
		if err := s.c.checkRoot(); err != nil {
			return err
		}
	} else if err := s.c.mount(private, &s.undo); err != nil {
		return err
	}
	g, err := s.c.Cgroup()
	if err != nil {
		return fault.Wrap(fault.Cgroup, err)
	}
	if err := g.Create(); err != nil {
		return fault.Wrap(fault.Cgroup, err)
	}
	s.undo.Push("remove cgroup", g.Remove)
	uid, gid, err := s.c.IDs()
	if err != nil {
		return err
	}
	return fault.Wrap(fault.Cgroup, g.Chown(int(uid), int(gid)))
}

// Mount makes the files in an image that has arrived the container's.
func (s *Shell) Mount(a *Area) error {
	a.image.Unchecked = true
	return s.c.mountImage(*a.image, &s.undo)
}

// Enclose puts process pid into the container's cgroup and gives it a cgroup
// namespace that begins there. What it forks from then on has both.
func (s *Shell) Enclose(pid int) error {
	g, err := s.c.Cgroup()
	if err != nil {
		return fault.Wrap(fault.Cgroup, err)
	}
	if err := g.Join(pid); err != nil {
		return fault.Wrap(fault.Cgroup, err)
	}
	return fault.Wrap(fault.Cgroup, unshareCgroup(pid))
}

// unshareCgroup has a process make its own cgroup namespace: made by us, it
// would belong to the host's user namespace.
func unshareCgroup(pid int) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	task, err := inject.Stop(pid)
	if err != nil {
		return fmt.Errorf("stop process %d: %w", pid, err)
	}
	_, err = task.Syscall(unix.SYS_UNSHARE, unix.CLONE_NEWCGROUP)
	if err != nil {
		err = fmt.Errorf("unshare cgroup namespace of process %d: %w", pid, err)
	}
	return errors.Join(err, task.Release())
}

// Connect gives the network namespace of process pid the container's
// connection, without routing anything to it yet.
func (s *Shell) Connect(pid int) error {
	return fault.Wrap(fault.Network, s.c.Venet().Connect(pid, &s.undo))
}

// Route sends the container's traffic to it. Neighbours that have its
// addresses elsewhere do not know yet: see Announce.
func (s *Shell) Route() error {
	return fault.Wrap(fault.Network, s.c.Venet().Route(&s.undo))
}

// Announce tells the neighbours that the container's addresses are here. It
// takes some milliseconds after they have heard. One that could not be told
// finds out by asking, so failed announcements are not an error.
func (s *Shell) Announce() { _ = s.c.Venet().Announce() }

// Started records that init is the container's first process.
func (s *Shell) Started(init int) error {
	if err := s.c.SetInit(init); err != nil {
		return fault.New(fault.Other, "record state: %w", err)
	}
	s.undo.Push("forget state", s.c.ForgetInit)
	return nil
}

// Keep makes the shell stay when the command ends.
func (s *Shell) Keep() { s.undo.Keep() }

// Close takes apart what was made and not kept.
func (s *Shell) Close() error { return s.undo.Run() }

// Dismantle takes apart the shell of a container whose processes are gone.
func (c *Container) Dismantle() error {
	g, err := c.Cgroup()
	if err != nil {
		return fault.Wrap(fault.Cgroup, err)
	}
	var u undo.Stack // everything, newest first, past errors
	u.Push("forget state", c.ForgetInit)
	u.Push("remove "+c.Root(), c.removeRoot)
	u.Push("unmount", c.unmount)
	u.Push("remove cgroup", g.Remove)
	u.Push("release network", func() error { return freeze.ReleaseLink(c.Venet().HostEnd()) })
	u.Push("remove network", c.Venet().Disconnect)
	u.Push("remove routes", c.Venet().Unroute)
	return u.Run()
}

// initPath is the program that a container's first process becomes.
const initPath = "/sbin/init"

// checkInit refuses a tree without an init.
func (c *Container) checkInit(tree string) error {
	if _, err := os.Lstat(filepath.Join(tree, initPath)); err != nil {
		return fault.New(fault.NoTemplate, "container %d has no %s", c.ID, initPath)
	}
	return nil
}
