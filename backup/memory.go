package backup

import (
	"context"
	"time"

	"github.com/vzkit/vzkit/dump"
	"github.com/vzkit/vzkit/dump/track"
	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/restore/memory"
)

// maxRounds bounds the rounds in which memory is copied; fewPages are copied
// in a few milliseconds, so that a further round would gain nothing.
const (
	maxRounds = 16
	fewPages  = 2048
)

// storeSink puts what a tracker finds into a store.
type storeSink struct{ store *memory.Store }

func (s storeSink) Pages(r track.Run) error {
	err := s.store.Put(r.Space, r.Address, r.Count, r.Data)
	if fault.KindOf(err) == fault.NoSpace {
		return fault.New(fault.NoSpace, "%w", err).
			WithHint("Stop what makes the container grow, or let it stand still while its memory goes to the disk: --tracker none.")
	}
	return err
}

// copyMemory copies memory in rounds while the container runs, as long as each
// leaves much less than the one before. Then the dump is made ready, and what
// was written meanwhile takes one round more.
func (k *checkpoint) copyMemory(ctx context.Context) error {
	if k.tracker == nil {
		return k.prepareDump()
	}
	for before := uint64(1<<64 - 1); len(k.report.Rounds) < maxRounds; {
		dirty, err := k.round(ctx)
		if err != nil {
			return err
		}
		if dirty < fewPages || dirty > before-before/4 {
			break
		}
		before = dirty
	}
	if err := k.prepareDump(); err != nil {
		return err
	}
	_, err := k.round(ctx)
	return err
}

// round copies the pages written since the round before, and returns how many
// were written meanwhile.
func (k *checkpoint) round(ctx context.Context) (dirty uint64, err error) {
	start := time.Now()
	r, err := k.tracker.Round(ctx, storeSink{k.room.memory})
	if err != nil {
		return 0, fault.Wrap(fault.Checkpoint, err)
	}
	round := Round{MS: millis(time.Since(start)), Pages: r.Pages, Zero: r.Zero, Dirty: k.tracker.Dirty()}
	k.report.Rounds = append(k.report.Rounds, round)
	k.Rounded(round)
	return round.Dirty, nil
}

// prepareDump makes the dump ready while the container still runs.
func (k *checkpoint) prepareDump() error {
	z, err := k.c.Freezer()
	if err != nil {
		return err
	}
	pids, err := k.cgroup.Procs()
	if err != nil {
		return fault.Wrap(fault.Checkpoint, err)
	}
	k.dump, err = dump.Prepare(dump.Config{
		Criu: k.criu, Init: k.c.Init(), Freeze: z.Dir, Dir: k.room.images, Mode: k.mode,
		Cache: criuCache(k.c), Sink: k.own, Then: k.afterDump,
	}, pids)
	if err != nil {
		return err
	}
	k.undo.Push("end dump", func() error { k.dump.Close(); return nil })
	k.report.Dump = string(k.mode)
	return nil
}
