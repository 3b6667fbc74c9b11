package migrate

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/vzkit/vzkit/freeze"
	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/lifecycle"
	"github.com/vzkit/vzkit/lifecycle/image"
	"github.com/vzkit/vzkit/transport"
)

// deliveryTime is how long the source goes on delivering a handover before it
// leaves that to the next command.
const deliveryTime = 30 * time.Second

// awaitRestored waits until the destination holds the whole container, and
// makes sure meanwhile that CRIU was not shown what no longer held.
func (s *source) awaitRestored(ctx context.Context) error {
	checked := make(chan error, 1)
	go func() {
		if s.dump == nil {
			checked <- nil
			return
		}
		checked <- s.dump.CheckFlags()
	}()
	var err error
	var first []transport.Type // in any order
	if s.tracker != nil {      // of the last pages
		first = append(first, transport.TypeRoundDone)
	}
	if s.beside != nil {
		first = append(first, transport.TypeFilesDone)
	}
	for len(first) > 0 && err == nil {
		var f frame
		f, err = s.peer.next(ctx, first...)
		first = slices.DeleteFunc(first, func(t transport.Type) bool { return t == f.typ })
	}
	if err == nil {
		err = s.peer.expect(ctx, transport.TypeRestored, nil)
	}
	if cerr := <-checked; err == nil && cerr != nil {
		err = fault.New(fault.Checkpoint, "%w: %w", errStale, cerr)
	}
	return err
}

// errStale tells that a described dump described what was not so any more.
var errStale = errors.New("dump is out of date")

// record writes the record. When it returns nil there is no way back, and a
// signal no longer ends the move.
func (s *source) record(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.watch.step("destination restores")
	if s.live {
		if err := s.c.Venet().Unroute(); err != nil {
			return fault.Wrap(fault.Network, err)
		}
		s.undo.Push("route", func() error { return s.c.Venet().Route(&s.undo) })
	}
	err := s.c.HandOver(lifecycle.Handover{ID: s.id, To: s.To, Live: s.live, At: time.Now()})
	if err != nil {
		// Whether it is on the disk is not known; without it the source owns.
		return errors.Join(fault.New(fault.Other, "record handover: %w", err), s.c.Delivered())
	}
	s.undo.Keep()
	s.watch.step("record the handover")
	return nil
}

// deliver tells the destination to run the container, and lets go of it here
// when it does.
func (s *source) deliver() error {
	defer s.endMemory()
	ctx, cancel := context.WithTimeout(context.Background(), deliveryTime)
	defer cancel()
	err := s.commit(ctx)
	for wait := 500 * time.Millisecond; err != nil && !isRefusal(err) && ctx.Err() == nil; wait *= 2 {
		s.Emit(Event{Kind: Note, Text: "handover is recorded but not confirmed, trying again: " + err.Error()})
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
		err = s.attach(ctx)
	}
	if err != nil {
		return fault.New(fault.Undelivered, "container %d is handed to %s, which has not confirmed: %w", s.c.ID, s.To, err).
			WithHint("It stands still and is whole. vzmigrate %s %d delivers the handover when %s can be reached.", s.To, s.c.ID, s.To)
	}
	return s.letGo()
}

// endMemory lets go of what the memory of a container that is not this host's
// any more was found and sent with.
func (s *source) endMemory() {
	s.endPages()
	var errs []error
	if s.tracker != nil {
		errs = append(errs, s.tracker.Close(), s.shadow.close())
	}
	if s.dumpDir != "" {
		errs = append(errs, s.endDump())
	}
	if s.frozen != nil {
		errs = append(errs, s.frozen.closeDetour())
	}
	if err := errors.Join(errs...); err != nil {
		s.Emit(Event{Kind: Note, Text: "something is left here: " + err.Error()})
	}
}

// isRefusal tells an answer from a lost connection: asking again would bring
// the same.
func isRefusal(err error) bool {
	var refused *transport.PeerError
	return errors.As(err, &refused)
}

// commit delivers the decision on the connection there is.
func (s *source) commit(ctx context.Context) error {
	s.sendPackets()
	if err := s.peer.WriteJSON(transport.TypeCommit, nil); err != nil {
		return err
	}
	if err := s.peer.expect(ctx, transport.TypeResumed, nil); err != nil {
		return err
	}
	return s.settled(ctx)
}

// settled notes the end of the downtime and waits until the container is on
// the destination's disk: only then may its files go from here.
func (s *source) settled(ctx context.Context) error {
	if s.frozen != nil && !s.resumed {
		s.resumed = true
		s.standstill(phaseRestore, 0)
		s.watch.step("destination runs it")
	}
	var settled Settled
	start := time.Now()
	if err := s.peer.expect(ctx, transport.TypeSettled, &settled); err != nil {
		return err
	}
	s.report.Fill = settled.Fill
	s.report.Steps = append(s.report.Steps, s.watch.steps...)
	s.report.Steps = append(s.report.Steps, settled.Steps[:min(len(settled.Steps), maxSteps)]...)
	if s.tracker != nil {
		s.done("fill", start, 0)
	}
	return nil
}

// attach delivers the decision on a new connection: to the receiver that holds
// the container, or it hears that the container runs there already.
func (s *source) attach(ctx context.Context) error {
	if s.peer != nil {
		s.report.WireBytes += s.peer.Counts().SentBytes
		s.peer.close()
	}
	link, err := s.Dial(ctx)
	if err != nil {
		return fault.Wrap(fault.Connect, err)
	}
	if s.peer, err = connect(link, s.hostID, func(error) {}); err != nil {
		return err
	}
	if err := s.peer.WriteJSON(transport.TypeAttach, Attach{ID: s.id, CTID: s.c.ID}); err != nil {
		return err
	}
	f, err := s.peer.next(ctx, transport.TypeRestored, transport.TypeResumed)
	switch {
	case err != nil:
		return err
	case f.typ == transport.TypeResumed:
		return s.settled(ctx)
	}
	return s.commit(ctx)
}

// letGo removes the container from this host, now that it runs elsewhere. It
// stays held and frozen until its processes are dead: none of their packets
// escapes.
func (s *source) letGo() error {
	start := time.Now()
	errs := []error{s.c.Kill()}
	if s.tree != nil {
		errs = append(errs, s.tree.Close())
	}
	if s.release != nil {
		errs = append(errs, s.release())
	}
	errs = append(errs, s.c.Dismantle())
	s.report.WireBytes += s.peer.Counts().SentBytes
	errs = append(errs, s.peer.WriteJSON(transport.TypeFinish, nil))
	s.peer.close()
	if s.KeepFiles {
		errs = append(errs, keep(s.c.Host(), s.c.ID, keptGone, s.c.Private(), s.c.Layout()), s.c.RetireConfig(".migrated"))
	} else {
		errs = append(errs, s.c.Remove(".migrated"))
	}
	if err := errors.Join(errs...); err != nil {
		// The container runs at the destination: say so, whatever is left here.
		s.Emit(Event{Kind: Note, Text: "container runs on " + s.To + ", but something is left here: " + err.Error()})
	}
	if err := s.c.Delivered(); err != nil {
		return err
	}
	if s.layout != nil {
		s.noteBase(len(s.layout.Processes), s.copying)
	}
	s.done("finish", start, 0)
	return nil
}

// redeliver goes on with a handover that an earlier command has recorded and
// could not deliver.
func (s *source) redeliver(ctx context.Context, h *lifecycle.Handover) (err error) {
	if h.To != s.To {
		return fault.New(fault.Undelivered, "container %d is handed to %s", s.c.ID, h.To).
			WithHint("vzmigrate %s %d delivers the handover.", h.To, s.c.ID)
	}
	if s.hostID, err = s.c.Host().HostID(); err != nil {
		return err
	}
	s.id, s.live, s.report.Live = h.ID, h.Live, h.Live
	if s.c.Layout() == lifecycle.LayoutImage { // a command that was killed may have left it mounted
		s.release = image.Image{Dir: s.c.Private()}.Detach
	}
	s.Emit(Event{Kind: Note, Text: "delivering the handover of " + h.At.Format(time.DateTime)})
	if h.Live { // whoever froze it may have died with its hold in place, or not
		_, _ = freeze.HoldLink(s.c.Venet().HostEnd())
	}
	if err := s.attach(ctx); err != nil {
		return fault.New(fault.Undelivered, "deliver container %d to %s: %w", s.c.ID, h.To, err).
			WithHint("Its files and the record of %s are kept here; nothing runs it.", h.At.Format(time.DateTime))
	}
	return s.letGo()
}
