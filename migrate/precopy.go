package migrate

import (
	"context"
	"errors"
	"path/filepath"
	"time"

	"github.com/vzkit/vzkit/dump"
	"github.com/vzkit/vzkit/dump/track"
	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/transport"
	"github.com/vzkit/vzkit/transport/files"
	"github.com/vzkit/vzkit/transport/memory"
)

// pageSink sends what a tracker finds.
type pageSink struct {
	sender *memory.Sender
	shadow *shadow // with --verify-tracking
	sent   func(bytes uint64)
}

func (p pageSink) Pages(r track.Run) error {
	p.sent(uint64(len(r.Data)))
	if err := p.shadow.put(r); err != nil {
		return err
	}
	if r.Own {
		return p.sender.Whole(r.Space, r.Address, r.Count, r.Data)
	}
	return p.sender.Pages(r.Space, r.Address, r.Count, r.Data)
}

// chooseWay finds a tracker and a way to dump that work here. Nothing is done
// to the container yet.
func (s *source) chooseWay() error {
	if s.Memory.Tracker == "none" {
		return nil
	}
	t, why, err := track.Open(s.Memory.Tracker, track.Options{Pids: s.cgroup.Procs})
	if err != nil {
		return fault.Wrap(fault.Checkpoint, err)
	}
	if why != "" {
		s.Emit(Event{Kind: Note, Text: "tracker is " + t.Name() + ": " + why})
	}
	s.tracker, s.report.Tracker = t, t.Name()
	s.undo.Push("stop tracking", t.Close)
	_, why, err = dump.Choose(s.dumpMode(), s.criu)
	if why != "" {
		s.Emit(Event{Kind: Note, Text: "dump is " + string(dump.Stock) + ": " + why})
	}
	return err
}

// openPages prepares for sending pages. Its undo comes after the connections',
// which end a write that blocks.
func (s *source) openPages(ctx context.Context) error {
	writers, err := s.openStreams(ctx)
	if err != nil {
		return err
	}
	if s.Memory.Verify {
		if s.shadow, err = newShadow(filepath.Join(s.c.Host().Run, "verify", s.id), 4*s.memory+64<<20); err != nil {
			return err
		}
		s.undo.Push("remove shadow", s.shadow.close)
	}
	s.pages, err = memory.NewSender(writers, memory.Options{Codec: s.Memory.Codec, DeltaCache: int(s.Memory.DeltaCache)})
	return err
}

// preCopy sends memory in rounds while the container runs, until freezing it
// is predicted to be short or waiting longer would not help. Then the dump is
// made ready, and what was written meanwhile takes one round more.
func (s *source) preCopy(parent context.Context) error {
	if !s.live {
		return nil
	}
	if s.tracker == nil {
		return s.prepareDump()
	}
	if err := s.openPages(parent); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(parent, s.Memory.MaxTime, s.tooSlow())
	defer cancel()
	p := newPlan(s.Memory, s.expectedBase())
	b := brake{group: s.cgroup}
	s.undo.Push("lift CPU limit", b.lift)
	for {
		b.look()
		decision, err := s.round(ctx, p, false)
		if cause := context.Cause(ctx); err != nil && errors.Is(err, context.DeadlineExceeded) && parent.Err() == nil {
			err = cause
		}
		switch {
		case err != nil:
			return err
		case decision.ends():
			return s.lastRound(ctx, p)
		}
		if decision == Throttle {
			if err := b.step(); err != nil {
				s.Emit(Event{Kind: Note, Text: "container cannot be throttled: " + err.Error()})
				p.throttle = false
			}
		}
	}
}

// lastRound makes the dump ready, looks at all files once more, since changes of
// inode flags are not reported, and sends what was written meanwhile.
func (s *source) lastRound(ctx context.Context, p *plan) error {
	if err := s.prepareDump(); err != nil {
		return err
	}
	if _, err := s.livePass(ctx, files.PassOptions{All: true}); err != nil || s.tracker.Dirty() == 0 {
		return err
	}
	_, err := s.round(ctx, p, true)
	return err
}

// tooSlow is the error of pre-copy that takes too long.
func (s *source) tooSlow() error {
	return fault.New(fault.TooSlow, "memory of container %d was still changing too fast after %v", s.c.ID, s.Memory.MaxTime).
		WithHint("It runs on on %s. Give it more --max-time or a greater --downtime-limit, or use --auto-converge.", s.From)
}

// round sends the pages written since the round before, waits until they are
// at the destination, and decides what is next.
func (s *source) round(ctx context.Context, p *plan, last bool) (Decision, error) {
	start, before := time.Now(), s.pages.Counts().Wire
	r, err := s.tracker.Round(ctx, pageSink{s.pages, s.shadow, s.copied()})
	if err == nil {
		err = s.pages.Mark(uint64(len(s.report.Rounds) + 1))
	}
	if err == nil {
		err = s.peer.expect(ctx, transport.TypeRoundDone, nil)
	}
	if err != nil {
		return "", err
	}
	took := time.Since(start)
	dirty := s.tracker.Dirty()
	decision := LastRound
	if !last {
		decision = p.after(r, took, dirty)
	}
	round := Round{
		MS: millis(took), Pages: r.Pages, Zero: r.Zero, WireBytes: s.pages.Counts().Wire - before,
		Dirty: dirty, Predicted: millis(p.predict(dirty)), Decision: decision,
	}
	s.report.Rounds = append(s.report.Rounds, round)
	s.report.MemoryBytes += r.Pages * track.PageSize
	s.Emit(Event{Kind: Rounded, Phase: phaseMemory, Millis: round.MS, Bytes: r.Pages * track.PageSize, Round: &round})
	return decision, nil
}

// copied tells, now and then, how far a round is.
func (s *source) copied() func(bytes uint64) {
	tell := s.every()
	var sum, total uint64
	if len(s.report.Rounds) == 0 {
		total = s.memory
	}
	return func(bytes uint64) {
		sum += bytes
		tell(Event{Kind: Progress, Phase: phaseMemory, Bytes: sum, Total: total})
	}
}
