// Package freeze stops and thaws a container, and holds its network still
// meanwhile: the tasks by the cgroup freezer (v1 freezer.state or v2
// cgroup.freeze), the packets by a drop rule at the host's end of its link.
//
// A frozen container costs nothing and stays frozen whatever happens to the
// process that froze it; whoever finds it may thaw or kill it.
package freeze

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// poll is how often a freezer that is still busy is looked at.
const poll = 200 * time.Microsecond

// Freezer freezes all tasks of one cgroup and of those below it. The zero
// value is not usable.
type Freezer struct {
	Dir     string // of the cgroup, in the v1 freezer hierarchy or in v2
	Unified bool   // v2
}

// Freeze stops every task and returns when all of them stand still. If ctx
// ends first, for example because a task hangs in uninterruptible sleep, they
// are thawed again.
func (f Freezer) Freeze(ctx context.Context) error {
	if err := f.set(true); err != nil {
		return err
	}
	for {
		frozen, err := f.Frozen()
		if err != nil {
			return err
		}
		if frozen {
			return nil
		}
		select {
		case <-ctx.Done():
			if err := f.Thaw(); err != nil {
				return err
			}
			return fmt.Errorf("freeze cgroup %q: %w", f.Dir, ctx.Err())
		case <-time.After(poll):
		}
		if !f.Unified { // v1 may need to be asked again (freezer-subsystem.rst)
			if err := f.set(true); err != nil {
				return err
			}
		}
	}
}

// Mark makes the cgroup freeze without waiting: tasks that a tracer holds now
// stand still as soon as it lets go of them.
func (f Freezer) Mark() error { return f.set(true) }

// Thaw lets the tasks run.
func (f Freezer) Thaw() error { return f.set(false) }

// Frozen tells whether every task stands still.
func (f Freezer) Frozen() (bool, error) {
	file, want := "freezer.state", []byte("FROZEN")
	if f.Unified {
		file, want = "cgroup.events", []byte("frozen 1")
	}
	text, err := os.ReadFile(filepath.Join(f.Dir, file))
	if err != nil {
		return false, fmt.Errorf("read freezer: %w", err)
	}
	return bytes.Contains(text, want), nil
}

func (f Freezer) set(frozen bool) error {
	file, value := "freezer.state", "THAWED"
	if frozen {
		value = "FROZEN"
	}
	if f.Unified {
		file, value = "cgroup.freeze", "0"
		if frozen {
			value = "1"
		}
	}
	if err := os.WriteFile(filepath.Join(f.Dir, file), []byte(value), 0); err != nil {
		return fmt.Errorf("write freezer: %w", err)
	}
	return nil
}
