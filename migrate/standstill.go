package migrate

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/vzkit/vzkit/dump"
	"github.com/vzkit/vzkit/dump/track"
	"github.com/vzkit/vzkit/freeze"
	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/lifecycle"
	"github.com/vzkit/vzkit/lifecycle/network"
	"github.com/vzkit/vzkit/transport"
)

// frozen is a container that stands still for its move.
type frozen struct {
	freezer freeze.Freezer
	detour  *network.Detour // of what is sent to it; nil where there can be none
	since   time.Time
	mark    time.Time // end of the phase before
}

// thaw and let its packets through again.
func (f *frozen) release(c *lifecycle.Container) error {
	if err := f.freezer.Thaw(); err != nil {
		return err
	}
	if err := freeze.ReleaseLink(c.Venet().HostEnd()); err != nil {
		return err
	}
	if f.detour == nil {
		return nil
	}
	return errors.Join(f.detour.Back(), f.closeDetour())
}

// closeDetour removes the detour. Calling it twice is fine.
func (f *frozen) closeDetour() error {
	d := f.detour
	f.detour = nil
	if d == nil {
		return nil
	}
	return d.Close()
}

// freezeTimeout bounds the freezing of the tasks; one in uninterruptible sleep
// would otherwise hang the migration and the container with it.
const freezeTimeout = 10 * time.Second

// sendState takes what must be taken while the container stands still. For a
// stopped container that is its files.
func (s *source) sendState(ctx context.Context) error {
	if !s.live {
		start := time.Now()
		n, err := s.lastPass(ctx)
		s.done("files", start, n)
		return err
	}
	defer keepHeap()()
	if err := s.freeze(ctx); err != nil {
		return err
	}
	return s.sendFrozen(ctx)
}

// prepareDump makes the dump ready while the container still runs.
func (s *source) prepareDump() error {
	dir := filepath.Join(s.c.Host().Run, "dump", s.id)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fault.New(fault.Checkpoint, "make image directory: %w", err)
	}
	s.dumpDir = dir
	s.undo.Push("end dump", s.endDump)
	z, err := s.c.Freezer()
	if err != nil {
		return err
	}
	pids, err := s.cgroup.Procs()
	if err != nil {
		return fault.Wrap(fault.Checkpoint, err)
	}
	if err := dump.Check(s.c.ID, s.c.Init(), pids); err != nil { // since the check
		return err
	}
	s.groups = s.cgroup.Nested() || mountsCgroups(s.c.Init())
	s.dump, err = dump.Prepare(dump.Config{
		Criu: s.criu, Init: s.c.Init(), Freeze: z.Dir, Dir: dir, Mode: s.dumpMode(), Groups: s.groups,
		Cache: filepath.Join(s.c.Host().Run, "criu"), Sink: wireSink{s.peer.Conn, s.dumped()}, Then: s.afterDump,
	}, pids)
	if err != nil {
		return err
	}
	mode, _ := s.dump.Mode()
	s.report.Dump = string(mode)
	return nil
}

// mountsCgroups tells whether a container sees its cgroups: then it may have
// made some while nobody looked.
func mountsCgroups(init int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", init))
	return err != nil || strings.Contains(string(text), " - cgroup")
}

// endDump removes what prepareDump has made.
func (s *source) endDump() error {
	if s.dump != nil {
		s.dump.Close()
	}
	return os.RemoveAll(s.dumpDir)
}

// dumpMode is what was asked for. Without a tracker there is nothing that CRIU
// could leave alone.
func (s *source) dumpMode() dump.Mode {
	switch {
	case s.tracker == nil:
		return dump.Copied
	case s.Memory.Dump == "auto":
		return ""
	}
	return dump.Mode(s.Memory.Dump)
}

// standstill records a phase of the downtime, which begins where the one
// before ended.
func (s *source) standstill(name string, bytes uint64) {
	now := time.Now()
	s.took(name, now.Sub(s.frozen.mark), bytes)
	s.frozen.mark = now
	s.report.Downtime = millis(now.Sub(s.frozen.since))
}

func (s *source) freeze(ctx context.Context) error {
	z, err := s.c.Freezer()
	if err != nil {
		return err
	}
	s.hurry()
	detour := s.openDetour()
	s.watch.start("source")
	f, err := standStill(ctx, s.c, z, detour)
	if err != nil {
		return fault.Wrap(fault.Checkpoint, err)
	}
	s.frozen = f
	s.undo.Push("thaw", func() error { return f.release(s.c) })
	s.standstill(phaseFreeze, 0)
	s.watch.step("freeze tasks, hold network")
	pids, err := s.cgroup.Procs()
	if err != nil {
		return fault.Wrap(fault.Checkpoint, err)
	}
	if what := dump.Stranger(s.c.Init(), pids); what != "" { // since the check
		return fault.New(fault.Checkpoint, "container %d cannot be checkpointed: %s", s.c.ID, what)
	}
	return nil
}

// openDetour prepares to take in what is sent to the container. Without TUN
// devices its peers send it again, later.
func (s *source) openDetour() *network.Detour {
	d, err := s.c.Venet().OpenDetour()
	if err != nil {
		s.Emit(Event{Kind: Note, Text: "packets that come while the container stands still are dropped: " + err.Error()})
		return nil
	}
	return d
}

// standStill freezes the container first and holds its network then: what its
// tasks still send gets out, and what its sockets still acknowledge is in them
// when CRIU looks.
func standStill(ctx context.Context, c *lifecycle.Container, z freeze.Freezer, detour *network.Detour) (*frozen, error) {
	ctx, cancel := context.WithTimeout(ctx, freezeTimeout)
	defer cancel()
	f := &frozen{freezer: z, detour: detour, since: time.Now()}
	f.mark = f.since
	if err := z.Freeze(ctx); err != nil {
		return nil, errors.Join(err, f.closeDetour())
	}
	var err error
	if detour != nil {
		err = detour.Begin()
	}
	if err == nil {
		_, err = freeze.HoldLink(c.Venet().HostEnd())
	}
	if err != nil {
		return nil, errors.Join(err, f.release(c))
	}
	return f, nil
}

// sendFrozen dumps the frozen container into the connection, while the rest
// of its memory goes over, and then what changed in its files.
func (s *source) sendFrozen(ctx context.Context) error {
	if err := s.peer.WriteJSON(transport.TypeMemoryBegin, nil); err != nil {
		return err
	}
	s.startBeside(ctx)
	defer s.endBeside() // also after a dump that failed: nothing may use the connection any more
	layout, err := s.settle(ctx)
	if err != nil {
		return err
	}
	s.watch.step("look at processes and mappings")
	_, err = s.dump.Dump(ctx, layout)
	if s.last != nil { // also after a dump that failed: nothing may read the tasks any more
		if lerr := <-s.last; err == nil {
			err = lerr
		}
	}
	return err
}

// settle has the tracker look at what is frozen and send the rest of its pages
// while CRIU works.
func (s *source) settle(ctx context.Context) (*track.Layout, error) {
	if s.tracker == nil {
		return &track.Layout{}, nil
	}
	sink := pageSink{s.pages, s.shadow, s.copied()}
	layout, err := s.tracker.Settle(ctx, sink)
	if err != nil {
		return nil, fault.Wrap(fault.Checkpoint, err)
	}
	s.layout, s.last = layout, make(chan error, 2)
	go func() {
		err := s.finishMemory(ctx, sink)
		s.last <- err // for afterDump
		s.last <- err // for sendFrozen
	}()
	return layout, nil
}

// finishMemory sends the pages that are left.
func (s *source) finishMemory(ctx context.Context, sink pageSink) error {
	start := time.Now()
	r, err := s.tracker.Finish(ctx, sink)
	s.report.LastPages, s.copying = s.report.LastPages+r.Pages, s.copying+time.Since(start)
	return fault.Wrap(fault.Checkpoint, err)
}

// afterMemory sends what the kernel has written while CRIU took hold of the
// tasks: system calls that were frozen in their sleep end then, and some leave
// the time that remains, poll(2) and nanosleep(2) among them.
func (s *source) afterMemory(ctx context.Context) error {
	if err := <-s.last; err != nil {
		return err
	}
	if err := s.finishMemory(ctx, pageSink{s.pages, s.shadow, func(uint64) {}}); err != nil {
		return err
	}
	if err := s.shadow.verify(s.tracker); err != nil {
		return err
	}
	if err := s.pages.Mark(s.lastMark()); err != nil {
		return err
	}
	return s.sendLayout()
}

// lastMark is the number of the mark that ends tracked memory: the rounds have
// those before it, and without any memory there is none.
func (s *source) lastMark() uint64 {
	if s.tracker == nil {
		return 0
	}
	return uint64(len(s.report.Rounds) + 1)
}

// afterDump sends what follows CRIU's images, with files that CRIU linked into
// the container's tree still there.
func (s *source) afterDump(stats dump.Stats) error {
	s.watch.step("criu dumps, images go over")
	if s.tracker != nil {
		if err := s.afterMemory(context.Background()); err != nil {
			return err
		}
	}
	bytes := (stats.Pages + s.report.LastPages) * dump.PageSize
	s.report.MemoryBytes += bytes
	s.watch.step("last pages go over")
	s.standstill(phaseDump, bytes)
	if err := s.peer.WriteJSON(transport.TypeMemoryEnd, MemoryEnd{
		Images: stats.Images, Pages: stats.Pages, Mark: s.lastMark(), Groups: s.groups,
	}); err != nil {
		return err
	}
	sent, err := s.lastPass(context.Background())
	s.standstill(phaseSend, sent)
	s.watch.step("last changed files go over")
	return err
}

// maxPart is how many processes or objects one layout frame names.
const maxPart = 500

// sendLayout tells whose memory has been sent.
func (s *source) sendLayout() error {
	var parts []Layout
	for i, p := range s.layout.Processes {
		if i%maxPart == 0 {
			parts = append(parts, Layout{})
		}
		last := &parts[len(parts)-1]
		last.Processes = append(last.Processes, SpaceOf{ID: uint64(p.VPID), Space: p.Space})
	}
	for i, o := range s.layout.Objects {
		if i%maxPart == 0 {
			parts = append(parts, Layout{})
		}
		last := &parts[len(parts)-1]
		last.Objects = append(last.Objects, SpaceOf{ID: o.Inode, Space: o.Space, Size: o.Size})
	}
	for _, part := range parts {
		if err := s.peer.WriteJSON(transport.TypeLayout, part); err != nil {
			return err
		}
	}
	return nil
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
