package migrate

import (
	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/internal/preflight"
	"github.com/vzkit/vzkit/lifecycle"
	"github.com/vzkit/vzkit/lifecycle/cgroup"
)

// checkCarried refuses a running container that has what the destination could
// not have: found now, it costs the container nothing.
func checkCarried(c *lifecycle.Container, g *cgroup.Group) error {
	pids, err := g.Procs()
	if err != nil {
		return fault.Wrap(fault.Cgroup, err)
	}
	return preflight.Carried(c, pids, "cannot move yet", "Remove it inside the container, or stop the container and move it stopped.")
}
