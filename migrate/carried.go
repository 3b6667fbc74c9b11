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
// It refuses processes that hold what CRIU cannot dump, too: found now, they
// cost the container nothing.
func checkCarried(c *lifecycle.Container, g *cgroup.Group) error {
	pids, err := g.Procs()
	if err != nil {
		return fault.Wrap(fault.Cgroup, err)
	}
	what, err := dump.Obstacle(c.Init(), pids)
	if err != nil {
		return fault.Wrap(fault.Checkpoint, err)
	}
	if what != "" {
		return fault.New(fault.Checkpoint, "container %d cannot be checkpointed: %s", c.ID, what).
			WithHint("Let that process end, or stop the container and move it stopped.")
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
