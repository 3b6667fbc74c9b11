// Package backup keeps the state of running containers in directories.
//
// A checkpoint is the state of a container's processes at one instant: the
// images that CRIU writes (criu.org/Images), which criu restore and crit read.
// It is taken as a live migration takes it (package migrate): memory is copied
// in rounds while the container runs, which then stands still for the last
// pages and for CRIU's description of everything else, and runs on. The images
// are put together afterwards.
//
// What belongs to the container and is not part of a checkpoint: its files. A
// file whose name is gone, but which has another one, is copied (see linked.go).
//
// A checkpoint's directory appears whole, by a rename, or not at all. Memory is
// on a tmpfs until it is there: a checkpoint needs as much memory as the
// container has, for a while.
package backup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vzkit/vzkit/dump"
	"github.com/vzkit/vzkit/dump/track"
	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/internal/undo"
	"github.com/vzkit/vzkit/lifecycle"
	"github.com/vzkit/vzkit/lifecycle/cgroup"
)

// Options say how a checkpoint is taken.
type Options struct {
	Dir     string // that is to have the images: not there yet, or empty
	Tracker string // "auto", "none" or what dump/track has
	Dump    string // "auto", or a mode of package dump
	Verify  bool   // compare all memory with what was copied
	Rounded func(Round)
	Note    func(text string) // what the user should know
}

// Report is what came of it. Times are in milliseconds.
type Report struct {
	CTID        uint32  `json:"ctid"`
	Dir         string  `json:"dir"`
	Tracker     string  `json:"tracker"`
	Dump        string  `json:"dump"`        // how CRIU dealt with memory: a mode of package dump
	Downtime    float64 `json:"downtime_ms"` // the container stood still
	Total       float64 `json:"total_ms"`
	Rounds      []Round `json:"rounds"`     // of memory, while it ran
	LastPages   uint64  `json:"last_pages"` // copied while it stood still
	MemoryPages uint64  `json:"pages"`      // in the images
	Bytes       uint64  `json:"bytes"`      // on the disk
}

// Round is one round of memory.
type Round struct {
	MS    float64 `json:"ms"`
	Pages uint64  `json:"pages"` // copied
	Zero  uint64  `json:"zero"`  // pages that are zero or gone
	Dirty uint64  `json:"dirty"` // written since the round began
}

// checkpoint is one that is being taken.
type checkpoint struct {
	Options
	c       *lifecycle.Container
	dir     string // Dir, absolute
	criu    string
	mode    dump.Mode
	cgroup  *cgroup.Group
	memory  uint64 // bytes that the processes have in use
	report  Report
	undo    undo.Stack
	room    *room
	tracker track.Tracker // nil: CRIU takes all memory
	dump    *dump.Prepared
	own     *ownPages // that CRIU takes
	layout  *track.Layout
	last    chan error // the outcome of copying the last pages, for each who waits
}

// Checkpoint writes the state of a running container into a directory. The
// container runs on, whatever the outcome.
func Checkpoint(ctx context.Context, c *lifecycle.Container, o Options) (*Report, error) {
	start := time.Now()
	lock, err := c.Host().Lock(c.ID, "vzctl checkpoint")
	if err != nil {
		return nil, err
	}
	defer lock.Unlock()
	k := &checkpoint{Options: o, c: c}
	err = k.take(ctx)
	if errors.Is(err, errStale) && o.Dump == "auto" {
		o.Note(err.Error() + "; once more, with CRIU's own view")
		k.Dump = string(dump.Stock)
		k = &checkpoint{Options: k.Options, c: c}
		err = k.take(ctx)
	}
	if err != nil {
		return nil, err
	}
	k.report.Total = millis(time.Since(start))
	return &k.report, nil
}

// errStale tells that CRIU was shown what was not so any more.
var errStale = errors.New("dump is out of date")

// take takes a checkpoint and removes all that it was made with.
func (k *checkpoint) take(ctx context.Context) error {
	k.report = Report{CTID: k.c.ID, Tracker: "none", Rounds: []Round{}}
	err := k.check()
	for _, step := range []func(context.Context) error{
		k.open, k.copyMemory, k.copyFrozen, k.assemble, k.publish,
	} {
		if err == nil {
			err = step(ctx)
		}
	}
	err = errors.Join(err, k.undo.Run())
	if err != nil && ctx.Err() != nil {
		return fault.New(fault.Interrupted, "interrupted; container %d runs on, there is no checkpoint", k.c.ID)
	}
	return fault.Wrap(fault.Checkpoint, err)
}

// open makes room for the checkpoint and starts to track.
func (k *checkpoint) open(context.Context) error {
	var err error
	if k.room, err = newRoom(k.c, k.dir, k.memory); err != nil {
		return noSpace(err)
	}
	k.undo.Push("remove what the checkpoint was made with", k.room.close)
	k.own = &ownPages{dir: k.room.partial, owners: map[owner]*own{}}
	k.undo.Push("close pages", k.own.close)
	return nil
}

// publish makes the checkpoint appear, and last.
func (k *checkpoint) publish(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	_, gid, err := k.c.IDs()
	if err == nil {
		err = seal(k.room.partial, int(gid))
	}
	if err != nil {
		return err
	}
	if k.report.Bytes, err = syncAll(k.room.partial); err != nil {
		return noSpace(err)
	}
	err = unix.Rename(k.room.partial, k.dir) // os.Rename would refuse an empty directory
	switch {
	case errors.Is(err, os.ErrExist):
		return fault.New(fault.Exists, "directory %q is not empty any more", k.dir)
	case err != nil:
		return fmt.Errorf("rename to %q: %w", k.dir, err)
	}
	if err := lifecycle.SyncDir(filepath.Dir(k.dir)); err != nil {
		return errors.Join(err, os.RemoveAll(k.dir))
	}
	k.report.Dir = k.dir
	return nil
}

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1e3 }
