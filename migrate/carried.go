package migrate

import (
	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/lifecycle"
)

// checkCarried refuses a running container whose network namespace holds what
// the destination could not rebuild: it makes venet0 with the configured
// addresses, and nothing else.
func checkCarried(c *lifecycle.Container) error {
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
