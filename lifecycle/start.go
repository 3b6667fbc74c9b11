package lifecycle

import (
	"context"
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vzkit/vzkit/freeze"
	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/internal/undo"
	"github.com/vzkit/vzkit/lifecycle/launch"
	"github.com/vzkit/vzkit/lifecycle/network"
)

// Start boots the container: its init runs when Start returns.
func (c *Container) Start() error { return c.locked("vzctl start", c.start) }

func (c *Container) start() error {
	if z, err := c.Freezer(); err == nil && c.Init() != 0 {
		if frozen, err := z.Frozen(); err == nil && frozen {
			return c.revive(z)
		}
	}
	if err := c.checkStart(); err != nil {
		return err
	}
	if err := c.Dismantle(); err != nil { // what a crash or a mount left
		return err
	}
	shell, err := c.Prepare(c.Private())
	if err != nil {
		return err
	}
	defer shell.Close()
	if err := c.checkInit(c.Root()); err != nil {
		return err
	}
	spec, err := c.spec()
	if err != nil {
		return err
	}
	g, err := c.Cgroup()
	if err != nil {
		return fault.Wrap(fault.Cgroup, err)
	}
	_, err = launch.Start(spec, func(pid int) error {
		if err := g.Join(pid); err != nil {
			return fault.Wrap(fault.Cgroup, err)
		}
		return errors.Join(shell.Connect(pid), shell.Started(pid))
	})
	if err != nil {
		return fault.New(fault.Other, "start container %d: %w", c.ID, err)
	}
	if err := shell.Route(); err != nil {
		return errors.Join(err, c.Kill())
	}
	shell.Announce()
	shell.Keep()
	return nil
}

// revive lets a container run on that was left frozen: its lock is free, so
// whoever froze it has died, and it is still this host's.
func (c *Container) revive(z freeze.Freezer) error {
	var u undo.Stack // a route that fails is the only thing to take back
	if err := c.Venet().Route(&u); err != nil {
		return errors.Join(fault.Wrap(fault.Network, err), u.Run())
	}
	if err := freeze.ReleaseLink(c.Venet().HostEnd()); err != nil {
		return fault.Wrap(fault.Network, err)
	}
	_ = c.Venet().Announce()
	return z.Thaw()
}

func (c *Container) checkStart() error {
	s, err := c.Status()
	switch {
	case err != nil:
		return err
	case s.Running:
		return fault.New(fault.Running, "container %d is running already", c.ID)
	case !s.Exists:
		return fault.New(fault.NoContainer, "container %d has no private area %q", c.ID, c.Private())
	}
	if v, _ := c.Conf.Get("DISABLED"); v == "yes" {
		return fault.New(fault.Disabled, "container %d is disabled", c.ID)
	}
	if err := c.CheckFree(); err != nil {
		return err
	}
	if c.Layout() == LayoutImage {
		return nil // there is nothing to be seen of it yet
	}
	return c.checkInit(c.Private())
}

// CheckFree refuses a container whose NAME, address or root something else on
// this host has.
func (c *Container) CheckFree() error {
	if err := c.checkRoot(); err != nil {
		return err
	}
	if err := c.host.unique(c); err != nil {
		return err
	}
	for _, a := range c.Venet().Addrs {
		used, err := network.InUse(a)
		if err != nil {
			return fault.Wrap(fault.Network, err)
		}
		if used {
			return fault.New(fault.AddressUsed, "address %s is in use on this host", a).
				WithHint("ip route get %s shows by what.", a)
		}
	}
	return nil
}

func (c *Container) spec() (launch.Spec, error) {
	uid, gid, err := c.IDs()
	return launch.Spec{
		Root: c.Root(), Hostname: c.Hostname(), UID: uid, GID: gid,
		Argv: []string{initPath}, Env: launch.Environment,
	}, err
}

// stopTimeout is how long a container may take to halt before it is killed,
// where neither its config nor vz.conf has STOP_TIMEOUT.
const stopTimeout = 120 * time.Second

// Stop halts the container: by its own init, and if that takes too long or
// fast is set, by killing it. Stopping a stopped container is fine.
func (c *Container) Stop(ctx context.Context, fast bool) error {
	return c.locked("vzctl stop", func() error { return c.stop(ctx, fast) })
}

func (c *Container) stop(ctx context.Context, fast bool) error {
	if init := c.Init(); init != 0 && !fast && c.checkThawed() == nil {
		c.halt(ctx, init)
	}
	if err := c.Kill(); err != nil {
		return err
	}
	return c.Dismantle()
}

// halt asks init to shut the container down and waits until it is gone, the
// time is over or ctx ends. Whether it worked shows in the cgroup.
func (c *Container) halt(ctx context.Context, init int) {
	limit := stopTimeout
	if d, err := time.ParseDuration(c.get("STOP_TIMEOUT", "0") + "s"); err == nil && d > 0 {
		limit = d
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	fd, err := unix.PidfdOpen(init, 0)
	if err != nil {
		return
	}
	gone := os.NewFile(uintptr(fd), "init")
	defer gone.Close()
	if status, err := c.Exec(ctx, []string{"halt"}, nil, nil, nil); err != nil || status != 0 {
		return
	}
	for ctx.Err() == nil {
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if n, _ := unix.Poll(poll, 50); n > 0 {
			return
		}
	}
}
