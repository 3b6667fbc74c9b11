package migrate

import (
	"github.com/vzkit/vzkit/dump"
	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/lifecycle"
	"github.com/vzkit/vzkit/lifecycle/cgroup"
)

// checkCarried refuses a running container whose network namespace holds what
// the destination could not rebuild: it makes venet0 with the configured
// addresses, and nothing else.
func checkCarried(c *lifecycle.Container, g *cgroup.Group) error {
	pids, err := g.Procs()
	if err != nil {
		return fault.Wrap(fault.Cgroup, err)
	}
	if err := dump.Check(c.ID, c.Init(), pids); err != nil {
		return err
	}
	extra, err := c.Venet().Foreign(c.Init())
	if err != nil {
		return fault.Wrap(fault.Checkpoint, err)
	}
	if len(extra) > 0 {
		return fault.New(fault.Checkpoint, "container %d has %s of its own, which cannot move yet", c.ID, extra[0]).
			WithHint("Remove it inside the container, or stop the container and move it stopped.")
	}
	return nil
}
