package migrate

import (
	"context"
	"errors"
	"time"

	"github.com/google/uuid"

	"github.com/vzkit/vzkit/dump"
	"github.com/vzkit/vzkit/dump/track"
	"github.com/vzkit/vzkit/internal/criu"
	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/internal/undo"
	"github.com/vzkit/vzkit/lifecycle"
	"github.com/vzkit/vzkit/lifecycle/cgroup"
	"github.com/vzkit/vzkit/transport"
	"github.com/vzkit/vzkit/transport/files"
	"github.com/vzkit/vzkit/transport/memory"
	"github.com/vzkit/vzkit/transport/pace"
)

// SendOptions say what goes where, and how.
type SendOptions struct {
	From, To    string // the hosts, as the user calls them
	Dial        Dialer
	Memory      MemoryOptions
	Files       FileOptions
	RequireLive bool        // refuse a container that does not run (--live)
	KeepFiles   bool        // leave the private area at the source (-r no)
	KeepDst     bool        // a move that fails leaves the files that have gone over, for the next one
	Layout      string      // of the private area at the destination; "" is what it is here
	Emit        func(Event) // told what happens; must be quick
}

// source is one migration, seen from the host the container leaves.
type source struct {
	SendOptions
	c       *lifecycle.Container
	id      string
	live    bool
	criu    string // path
	hostID  string
	began   time.Time
	report  Report
	peer    *peer
	streams []*peer      // further connections, for memory
	dir     string       // with the container's files
	release func() error // them
	tree    mover
	base    *files.SourceBase // what the destination has that is like them, or nil
	pass    int
	disk    uint64 // bytes of the private area, about what the first pass sends
	memory  uint64 // bytes in use by the processes, about what the dump sends
	cgroup  *cgroup.Group
	mapped  fileSet    // shared mappings seen so far
	beside  chan error // the outcome of the pass beside the dump
	frozen  *frozen    // once the container stands still
	watch   stopwatch
	resumed bool // at the destination
	undo    undo.Stack
	limiter *pace.Limiter // nil: no limit
	cancel  context.CancelCauseFunc
	tracker track.Tracker  // nil: all memory is dumped while the container stands still
	pages   *memory.Sender // of what the tracker finds
	shadow  *shadow        // with --verify-tracking
	dump    *dump.Prepared
	dumpDir string
	groups  bool          // there are cgroups inside the container's
	layout  *track.Layout // of the frozen container
	last    chan error    // the outcome of sending the last pages, once for each who waits
	copying time.Duration // how long that took
}

// Send moves container c to another host and returns when it is there and gone
// from here. If it returns an error of another kind than fault.Undelivered,
// the container is at the source as it was.
func Send(ctx context.Context, c *lifecycle.Container, o SendOptions) (*Report, error) {
	lock, err := c.Host().Lock(c.ID, "vzmigrate")
	if err != nil {
		return nil, err
	}
	defer lock.Unlock()
	handed, err := c.Handover()
	if err != nil {
		return nil, err
	}
	s := newSource(c, o)
	if handed != nil {
		err = s.redeliver(ctx, handed)
	} else {
		err = s.move(ctx)
	}
	if errors.Is(err, errStale) && o.Memory.Dump == "auto" {
		o.Emit(Event{Kind: Note, Text: err.Error() + "; once more, with CRIU's own view"})
		o.Memory.Dump = string(dump.Stock)
		s = newSource(c, o)
		err = s.move(ctx)
	}
	if err != nil {
		return nil, err
	}
	s.report.Total = millis(time.Since(s.began))
	return &s.report, nil
}

func newSource(c *lifecycle.Container, o SendOptions) *source {
	s := &source{SendOptions: o, c: c, began: time.Now(), mapped: fileSet{}}
	s.report = Report{CTID: c.ID, Source: o.From, Destination: o.To, Tracker: "none", Way: byFiles, Passes: []Pass{}, Rounds: []Round{}, Phases: []Phase{}, Steps: []Step{}}
	return s
}

// move does everything up to the record, undoes it on failure, and then
// delivers: what fails after the record must never thaw the container.
func (s *source) move(parent context.Context) error {
	ctx, cancel := context.WithCancelCause(parent)
	s.cancel = cancel
	defer cancel(nil)
	if err := s.check(); err != nil {
		return err
	}
	for _, step := range []func(context.Context) error{
		s.connect, s.openFiles, s.sendOffer,
		func(ctx context.Context) error { return s.politely(func() error { return s.sendFiles(ctx) }) }, s.preCopy, s.sendState, s.awaitRestored,
		func(context.Context) error { return s.record(parent) },
	} {
		if err := step(ctx); err != nil {
			return s.rollBack(parent, ctx, err)
		}
	}
	return s.deliver()
}

// check refuses, before any side effect, what cannot be moved from here.
func (s *source) check() error {
	status, err := s.c.Status()
	switch {
	case err != nil:
		return err
	case !status.Exists:
		return fault.New(fault.NoContainer, "container %d has no private area %q", s.c.ID, s.c.Private())
	case s.RequireLive && !status.Running:
		return fault.New(fault.NotRunning, "container %d is not running", s.c.ID).
			WithHint("Leave out --live to move it stopped, or vzctl start %d first.", s.c.ID)
	case status.Mounted && !status.Running:
		return fault.New(fault.Mounted, "container %d is mounted", s.c.ID).WithHint("vzctl umount %d first.", s.c.ID)
	}
	s.live, s.report.Live = status.Running, status.Running
	if s.hostID, err = s.c.Host().HostID(); err != nil {
		return err
	}
	if s.live {
		if s.cgroup, err = s.c.Cgroup(); err != nil {
			return fault.Wrap(fault.Cgroup, err)
		}
		if s.criu, err = criu.Find(); err != nil {
			return err
		}
		if err := checkCarried(s.c, s.cgroup); err != nil {
			return err
		}
		if err := s.chooseWay(); err != nil {
			return err
		}
	}
	s.id = uuid.NewString()
	return nil
}

func (s *source) connect(ctx context.Context) error {
	start := time.Now()
	link, err := s.Dial(ctx)
	if err != nil {
		return fault.Wrap(fault.Connect, err)
	}
	s.peer, err = connect(s.paced(link), s.hostID, func(err error) { s.cancel(err) })
	if err != nil {
		return err
	}
	s.undo.Push("end memory", func() error { s.endPages(); return nil })
	s.undo.Push("tell the destination", func() error { s.peer.abort(); return nil })
	codec, err := s.Memory.FileCodec()
	if err != nil {
		return err
	}
	s.peer.SetCodec(codec)
	s.done("connect", start, 0)
	return nil
}

// openFiles makes the container's files accessible until the move is over.
func (s *source) openFiles(ctx context.Context) (err error) {
	if s.dir, s.release, err = s.c.Files(ctx); err != nil {
		return err
	}
	s.undo.Push("unmount "+s.dir, s.release)
	return nil
}

func (s *source) sendOffer(ctx context.Context) error {
	start := time.Now()
	offer := Offer{ID: s.id, CTID: s.c.ID, Config: string(s.c.Conf.Bytes()), Live: s.live, Streams: s.Memory.Streams, Lossy: s.Files.Lossy, Layout: s.Layout, KeepDst: s.KeepDst}
	var err error
	if offer.Disk, offer.Inodes, err = files.Measure(ctx, s.dir); err != nil {
		return err
	}
	s.disk = offer.Disk
	sourceHeap(offer.Inodes)
	if offer.Image, err = s.offerImage(); err != nil {
		return err
	}
	if s.live {
		if offer.Criu, err = criu.Version(s.criu); err != nil {
			return err
		}
		pids, err := s.cgroup.Procs()
		if err != nil {
			return err
		}
		if offer.Memory, err = dump.InUse(pids); err != nil {
			return err
		}
		s.memory = offer.Memory
	}
	if err := s.peer.WriteJSON(transport.TypeOffer, offer); err != nil {
		return err
	}
	var accepted Accepted
	if err := s.peer.expect(ctx, transport.TypeAccept, &accepted); err != nil {
		return err
	}
	if err := s.agree(offer.Image, accepted.Way); err != nil {
		return err
	}
	s.tellLosses(accepted)
	s.done("check", start, 0)
	return s.hearBase(ctx)
}

// hearBase waits until the destination has told what it has already.
func (s *source) hearBase(ctx context.Context) (err error) {
	start := time.Now()
	if s.base, err = s.peer.base.base(ctx); s.base != nil {
		s.done("base", start, 0)
	}
	return err
}

// rollBack makes the container run here as before, then the destination clean.
// It returns the cause of the failure, which the peer may know better.
func (s *source) rollBack(parent, ctx context.Context, err error) error {
	s.hurry()
	if s.frozen != nil { // first of all; nothing below may keep it waiting
		if terr := s.frozen.release(s.c); terr != nil {
			err = errors.Join(err, terr)
		}
	}
	if s.peer != nil && fault.KindOf(err) == fault.Connect { // the reason may be waiting to be read
		select {
		case <-ctx.Done():
		case <-time.After(farewell):
		}
	}
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		err = cause
	}
	if parent.Err() != nil {
		err = fault.New(fault.Interrupted, "interrupted; container %d stays on %s", s.c.ID, s.From)
	}
	if uerr := s.undo.Run(); uerr != nil {
		err = errors.Join(err, uerr)
	}
	var remote *transport.PeerError
	if errors.As(err, &remote) {
		e := &fault.Error{Kind: fault.KindOf(err), Err: errors.New(s.To + ": " + err.Error()), Hint: fault.HintOf(err)}
		return e
	}
	return err
}

// done records a phase that has just ended.
func (s *source) done(name string, start time.Time, bytes uint64) {
	s.took(name, time.Since(start), bytes)
}

func (s *source) took(name string, d time.Duration, bytes uint64) {
	p := Phase{Name: name, MS: millis(d), Bytes: bytes}
	s.report.Phases = append(s.report.Phases, p)
	e := Event{Kind: Done, Phase: name, Millis: p.MS, Bytes: bytes}
	if name == "files" && s.report.Way == byBlocks {
		e.Text = "blocks of the image"
	}
	s.Emit(e)
}

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1e3 }
