package migrate

import (
	"context"

	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/internal/procfs"
	"github.com/vzkit/vzkit/restore/pager"
)

// prefill is how much of the memory that was written last is put into place
// before the container runs, in bytes: what it needs first costs it no fault.
const prefill = 1 << 20

// attachMemory gives the restored processes, which are frozen, the memory that
// came for them: at hand from now on, and in its place after fill.
func (d *destination) attachMemory() error {
	if len(d.state.spaces) == 0 {
		return nil
	}
	processes, err := d.tracked()
	if err != nil {
		return fault.Wrap(fault.Restore, err)
	}
	d.pager, err = pager.Attach(context.Background(), pager.Config{
		Processes: processes, Store: d.state.memory, Freezer: d.freezer, Guard: d.guard, Prefill: prefill,
	})
	if err != nil {
		return fault.Wrap(fault.Restore, err)
	}
	d.undo.Push("end pager", d.pager.Close)
	return nil
}

// tracked finds the restored processes by their pids in the container.
func (d *destination) tracked() (found []pager.Process, err error) {
	group, err := d.c.Cgroup()
	if err != nil {
		return nil, err
	}
	pids, err := group.Procs()
	if err != nil {
		return nil, err
	}
	for _, pid := range pids {
		inner, err := procfs.InnerPID(pid)
		if err != nil {
			return nil, err
		}
		if space, ok := d.state.spaces[inner]; ok {
			found = append(found, pager.Process{PID: pid, Space: space})
		}
	}
	return found, nil
}

// fill puts all memory of the running container into its place.
func (d *destination) fill() error {
	if d.pager == nil {
		return nil
	}
	return d.pager.Fill(context.Background(), nil)
}
