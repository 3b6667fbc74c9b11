// Package preflight has the checks that every command makes that is to freeze
// a container: they come before any side effect, and say what to do.
package preflight

import (
	"github.com/vzkit/vzkit/dump"
	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/internal/procfs"
	"github.com/vzkit/vzkit/lifecycle"
)

// Carried refuses a running container that has what CRIU cannot dump, or in its
// network namespace what would not be rebuilt: that is venet0 with the
// configured addresses, and nothing else. lack ends the sentence about the
// latter, and hint says what to do.
func Carried(c *lifecycle.Container, pids []int, lack, hint string) error {
	if err := dump.Check(c.ID, c.Init(), pids); err != nil {
		return err
	}
	extra, err := c.Venet().Foreign(c.Init())
	if err != nil {
		return fault.Wrap(fault.Checkpoint, err)
	}
	if len(extra) == 0 {
		return nil
	}
	return fault.New(fault.Checkpoint, "container %d has %s of its own, which %s", c.ID, extra[0], lack).WithHint("%s", hint)
}

// Memory compares what will be taken, in bytes, with what is available.
func Memory(need uint64, hint string) error {
	available, err := procfs.Available()
	if err != nil {
		return fault.New(fault.NoSpace, "look at memory: %w", err)
	}
	if available >= need {
		return nil
	}
	return fault.New(fault.NoSpace, "%d MiB of memory are available, %d MiB are needed", available>>20, need>>20).WithHint("%s", hint)
}
