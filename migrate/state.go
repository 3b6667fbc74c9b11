package migrate

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"github.com/vzkit/vzkit/dump"
	"github.com/vzkit/vzkit/freeze"
	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/lifecycle"
	"github.com/vzkit/vzkit/transport"
	"github.com/vzkit/vzkit/transport/files"
)

// Passes over the files while the container runs go on as long as they shrink:
// at most maxPasses, ending with one that sent less than fewBytes.
const (
	maxPasses = 4
	fewBytes  = 4 << 20
)

// sendFiles sends the private area while the container runs. What the last of
// these passes leaves is the frozen pass's.
func (s *source) sendFiles(ctx context.Context) error {
	var err error
	if s.tree, err = files.NewSource(s.c.Private()); err != nil {
		return err
	}
	s.undo.Push("close tree", s.tree.Close)
	if !s.live {
		return nil
	}
	for before := uint64(0); s.pass < maxPasses; {
		sent, err := s.sendPass(ctx, false)
		if err != nil {
			return err
		}
		if sent < fewBytes || (before > 0 && sent >= before) {
			break
		}
		before = sent
	}
	return nil
}

// sendPass sends what changed since the pass before and waits until it is
// written at the destination. It returns how many bytes of content it sent.
func (s *source) sendPass(ctx context.Context, last bool) (uint64, error) {
	start := time.Now()
	s.pass++
	if s.live {
		if err := s.mapped.addShared(s.cgroup); err != nil {
			return 0, fault.Wrap(fault.Copy, err)
		}
	}
	o := files.PassOptions{Pass: s.pass, Frozen: last, Progress: s.progress()}
	if last {
		o.Always = s.mapped.has
	}
	stats, err := s.tree.Pass(ctx, s.peer, o)
	if err != nil {
		return 0, err
	}
	if last { // the destination answers by what comes of it
		return stats.Bytes, s.peer.Flush()
	}
	if err := s.peer.expect(ctx, transport.TypeFilesDone, nil); err != nil {
		return 0, err
	}
	s.done("files", start, stats.Bytes)
	return stats.Bytes, nil
}

// progress tells, now and then, how far a pass over the files is.
func (s *source) progress() func(files.Stats) {
	tell := s.every()
	var total uint64
	if s.pass == 1 {
		total = s.disk
	}
	return func(st files.Stats) { tell(Event{Kind: Progress, Phase: "files", Bytes: st.Bytes, Total: total}) }
}

// every passes on no more than ten events a second.
func (s *source) every() func(Event) {
	var next time.Time
	return func(e Event) {
		if now := time.Now(); now.After(next) {
			next = now.Add(100 * time.Millisecond)
			s.Emit(e)
		}
	}
}

// frozen is a container that stands still for its move.
type frozen struct {
	freezer freeze.Freezer
	hold    *freeze.Hold
	since   time.Time
	mark    time.Time // end of the phase before
}

// thaw and let its packets through again.
func (f *frozen) release() error {
	if err := f.freezer.Thaw(); err != nil {
		return err
	}
	return f.hold.Release()
}

// freezeTimeout bounds the freezing of the tasks; one in uninterruptible sleep
// would otherwise hang the migration and the container with it.
const freezeTimeout = 10 * time.Second

// sendState takes what must be taken while the container stands still. For a
// stopped container that is its files.
func (s *source) sendState(ctx context.Context) error {
	if !s.live {
		start := time.Now()
		n, err := s.sendPass(ctx, true)
		s.done("files", start, n)
		return err
	}
	if err := s.freeze(ctx); err != nil {
		return err
	}
	return s.sendFrozen(ctx)
}

// standstill records a phase of the downtime, which begins where the one
// before ended.
func (s *source) standstill(name string, bytes uint64) {
	s.done(name, s.frozen.mark, bytes)
	s.frozen.mark = time.Now()
	s.report.Downtime = millis(s.frozen.mark.Sub(s.frozen.since))
}

func (s *source) freeze(ctx context.Context) error {
	z, err := s.c.Freezer()
	if err != nil {
		return err
	}
	f, err := standStill(ctx, s.c, z)
	if err != nil {
		return fault.Wrap(fault.Checkpoint, err)
	}
	s.frozen = f
	s.undo.Push("thaw", f.release)
	s.standstill(phaseFreeze, 0)
	pids, err := s.cgroup.Procs()
	if err != nil {
		return fault.Wrap(fault.Checkpoint, err)
	}
	if what := dump.Stranger(s.c.Init(), pids); what != "" { // since the check
		return fault.New(fault.Checkpoint, "container %d cannot be checkpointed: %s", s.c.ID, what)
	}
	return nil
}

func standStill(ctx context.Context, c *lifecycle.Container, z freeze.Freezer) (*frozen, error) {
	ctx, cancel := context.WithTimeout(ctx, freezeTimeout)
	defer cancel()
	now := time.Now()
	hold, err := freeze.HoldLink(c.Venet().HostEnd())
	if err != nil {
		return nil, err
	}
	if err := z.Freeze(ctx); err != nil {
		_ = hold.Release()
		return nil, err
	}
	return &frozen{freezer: z, hold: hold, since: now, mark: now}, nil
}

// sendFrozen dumps the frozen container into the connection, and then what
// changed in its files, with those that CRIU linked there for the dump.
func (s *source) sendFrozen(ctx context.Context) error {
	dir := filepath.Join(s.c.Host().Run, "dump", s.id)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fault.New(fault.Checkpoint, "make image directory: %w", err)
	}
	defer os.RemoveAll(dir)
	if err := s.peer.WriteJSON(transport.TypeMemoryBegin, nil); err != nil {
		return err
	}
	then := func(stats dump.Stats) error {
		s.report.MemoryBytes = stats.Pages * dump.PageSize
		s.standstill(phaseDump, s.report.MemoryBytes)
		if err := s.peer.WriteJSON(transport.TypeMemoryEnd, MemoryEnd{Images: stats.Images, Pages: stats.Pages}); err != nil {
			return err
		}
		sent, err := s.sendPass(ctx, true)
		s.standstill(phaseSend, sent)
		return err
	}
	_, err := dump.Dump(ctx, dump.Config{
		Criu: s.criu, Init: s.c.Init(), Freeze: s.frozen.freezer.Dir, Dir: dir, Sink: wireSink{s.peer.Conn, s.dumped()}, Then: then,
	})
	return err
}

// dumped tells, now and then, how far the dump is.
func (s *source) dumped() func(bytes uint64) {
	tell := s.every()
	var sum uint64
	return func(bytes uint64) {
		sum += bytes
		tell(Event{Kind: Progress, Phase: phaseDump, Bytes: sum, Total: s.memory})
	}
}

// wireSink sends a container's state over a connection.
type wireSink struct {
	conn *transport.Conn
	sent func(bytes uint64)
}

func (w wireSink) Pages(r dump.Run) error {
	w.sent(uint64(len(r.Data)))
	return w.conn.WritePages(transport.Pages{
		Space: transport.Space(r.Space), ID: r.ID, Address: r.Address, Count: r.Count, Flags: r.Flags, Data: r.Data,
	})
}

func (w wireSink) Image(name string, data []byte, last bool) error {
	return w.conn.WriteImage(transport.Image{Name: name, Last: last, Data: data})
}
