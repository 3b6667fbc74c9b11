package backup

import (
	"context"
	"errors"
	"path/filepath"
	"time"

	"github.com/vzkit/vzkit/dump"
	"github.com/vzkit/vzkit/dump/track"
	"github.com/vzkit/vzkit/freeze"
	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/lifecycle"
)

// freezeTimeout bounds the freezing of the tasks: one in uninterruptible sleep
// would otherwise hang the container.
const freezeTimeout = 10 * time.Second

// giveUp is how long an interrupted dump may take to end.
const giveUp = 5 * time.Second

// criuCache is for what CRIU knows of the kernel.
func criuCache(c *lifecycle.Container) string { return filepath.Join(c.Host().Run, "criu") }

// copyFrozen takes what must be taken while the container stands still. It
// runs again when copyFrozen returns, whatever happened.
func (k *checkpoint) copyFrozen(ctx context.Context) (err error) {
	z, err := k.c.Freezer()
	if err != nil {
		return err
	}
	start := time.Now()
	hold, err := freeze.HoldLink(k.c.Venet().HostEnd())
	if err != nil {
		return fault.Wrap(fault.Checkpoint, err)
	}
	defer func() {
		// Packets first: nothing is taken any more that they could change.
		err = errors.Join(err, freeze.PassLink(k.c.Venet().HostEnd()), z.Thaw())
		k.report.Downtime = millis(time.Since(start))
		err = errors.Join(err, hold.Release())
	}()
	if err := k.checkDumpable(); err != nil {
		return err
	}
	done := make(chan struct{})
	defer close(done)
	defer context.AfterFunc(ctx, func() {
		select {
		case <-done:
		case <-time.After(giveUp): // CRIU hangs on a frozen task: what it still does is for nothing
			_ = z.Thaw()
		}
	})()
	limited, cancel := context.WithTimeout(ctx, freezeTimeout)
	defer cancel()
	if err := z.Freeze(limited); err != nil {
		return fault.Wrap(fault.Checkpoint, err)
	}
	return k.dumpFrozen(ctx)
}

// checkDumpable looks once more, at what may have come since the check.
func (k *checkpoint) checkDumpable() error {
	pids, err := k.cgroup.Procs()
	if err != nil {
		return fault.Wrap(fault.Checkpoint, err)
	}
	return dump.Check(k.c.ID, k.c.Init(), pids)
}

// dumpFrozen has CRIU describe the frozen container, while the rest of its
// memory is copied.
func (k *checkpoint) dumpFrozen(ctx context.Context) error {
	pids, err := k.cgroup.Procs()
	if err != nil {
		return fault.Wrap(fault.Checkpoint, err)
	}
	if what := dump.Stranger(k.c.Init(), pids); what != "" { // since the check
		return fault.New(fault.Checkpoint, "container %d cannot be checkpointed: %s", k.c.ID, what)
	}
	if err := k.settle(ctx); err != nil {
		return err
	}
	_, err = k.dump.Dump(ctx, k.layout)
	if k.last != nil { // also after a dump that failed: nothing may read the tasks any more
		if lerr := <-k.last; err == nil {
			err = lerr
		}
	}
	return noSpace(err)
}

// settle has the tracker look at what is frozen and copy the rest of its pages
// while CRIU works.
func (k *checkpoint) settle(ctx context.Context) error {
	k.layout = &track.Layout{}
	if k.tracker == nil {
		return nil
	}
	layout, err := k.tracker.Settle(ctx, storeSink{k.room.memory})
	if err != nil {
		return fault.Wrap(fault.Checkpoint, err)
	}
	k.layout, k.last = layout, make(chan error, 2)
	go func() {
		err := k.finishMemory(ctx)
		k.last <- err // for afterDump
		k.last <- err // for dumpFrozen
	}()
	return nil
}

// finishMemory copies the pages that are left.
func (k *checkpoint) finishMemory(ctx context.Context) error {
	r, err := k.tracker.Finish(ctx, storeSink{k.room.memory})
	k.report.LastPages += r.Pages
	return fault.Wrap(fault.Checkpoint, err)
}

// afterDump takes what follows CRIU's images, before CRIU lets go of the
// tasks: the last pages, and files that CRIU has linked into the container's
// tree. CRIU's parasites are gone by now, so what CRIU was shown of the tasks
// is compared with them at the same time.
func (k *checkpoint) afterDump(dump.Stats) error {
	checked := make(chan error, 1)
	go func() { checked <- k.dump.CheckFlags() }()
	err := k.afterMemory()
	if err == nil {
		err = k.copyLinked()
	}
	if cerr := <-checked; err == nil && cerr != nil {
		err = fault.New(fault.Checkpoint, "%w: %w", errStale, cerr)
	}
	return err
}

// afterMemory copies what the kernel has written when CRIU took hold of the
// tasks: system calls end then, and some leave the time that remains.
func (k *checkpoint) afterMemory() error {
	if k.tracker == nil {
		return nil
	}
	if err := <-k.last; err != nil {
		return err
	}
	if err := k.finishMemory(context.Background()); err != nil || !k.Verify {
		return err
	}
	return k.verify()
}

// verify compares all memory with what was copied.
func (k *checkpoint) verify() error {
	if err := track.Verify(k.tracker, k.room.memory.Page); err != nil {
		return fault.New(fault.Checkpoint, "verify tracking: %w", err)
	}
	return nil
}
