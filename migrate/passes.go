package migrate

import (
	"context"
	"time"

	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/transport"
	"github.com/vzkit/vzkit/transport/files"
)

// Passes over the files while the container runs go on as long as they shrink:
// at most maxPasses, ending with one that sent less than fewBytes. One more
// comes when memory has gone over.
const (
	maxPasses = 8
	fewBytes  = 1 << 20
)

// sendFiles sends the private area while the container runs. What the last of
// these passes leaves is the frozen passes'.
func (s *source) sendFiles(ctx context.Context) error {
	if err := s.openTree(ctx); err != nil {
		return err
	}
	if !s.live {
		return nil
	}
	if why := s.tree.Watched(); why != nil {
		s.Emit(Event{Kind: Note, Text: "each pass looks at all files: " + why.Error()})
	}
	for before := uint64(0); s.pass < maxPasses; {
		sent, err := s.livePass(ctx, files.PassOptions{Base: s.base})
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

// livePass sends what changed since the pass before while the container runs,
// and waits until it is written at the destination.
func (s *source) livePass(ctx context.Context, o files.PassOptions) (bytes uint64, err error) {
	start := time.Now()
	p, err := s.sendPass(ctx, o)
	if err != nil {
		return 0, err
	}
	if err := s.peer.expect(ctx, transport.TypeFilesDone, nil); err != nil {
		return 0, err
	}
	p.MS = millis(time.Since(start))
	s.passed(p)
	s.done("files", start, p.Bytes)
	return p.Bytes, nil
}

// startBeside begins to send what changed in the files of the frozen container
// while CRIU dumps it. Where every pass looks at the whole tree that would only
// be done twice.
func (s *source) startBeside(ctx context.Context) {
	if s.tree.Watched() != nil {
		return
	}
	s.beside = make(chan error, 1)
	go func() {
		p, err := s.sendPass(ctx, files.PassOptions{Frozen: true, More: true})
		if err == nil {
			s.passed(p)
		}
		s.beside <- err
	}()
}

// endBeside waits for that pass. Calling it twice is fine.
func (s *source) endBeside() error {
	if s.beside == nil {
		return nil
	}
	err := <-s.beside
	s.beside <- nil
	return err
}

// lastPass sends what is left, with files that CRIU linked into the tree; of a
// stopped container, everything. The destination answers to that of a running
// one by what comes of it.
func (s *source) lastPass(ctx context.Context) (bytes uint64, err error) {
	if err := s.endBeside(); err != nil {
		return 0, err
	}
	o := files.PassOptions{Frozen: true}
	if !s.live {
		o.Base = s.base
	}
	p, err := s.sendPass(ctx, o)
	if err != nil {
		return 0, err
	}
	s.passed(p)
	if s.live {
		return p.Bytes, s.peer.Flush()
	}
	return p.Bytes, s.peer.expect(ctx, transport.TypeFilesDone, nil)
}

// passed notes a pass.
func (s *source) passed(p Pass) { s.report.Passes = append(s.report.Passes, p) }

// sendPass sends what changed since the pass before.
func (s *source) sendPass(ctx context.Context, o files.PassOptions) (Pass, error) {
	start := time.Now()
	s.pass++
	if s.live && s.report.Way == byFiles && (s.beside == nil || o.More) { // else the pass beside the dump has seen to it
		if err := s.findWriters(o.Frozen); err != nil {
			return Pass{}, fault.Wrap(fault.Copy, err)
		}
		o.Writers = s.mapped
	}
	o.Pass, o.Codec, o.Progress = s.pass, s.Memory.Codec, s.progress()
	stats, err := s.tree.Pass(ctx, s.peer, o)
	return Pass{
		MS: millis(time.Since(start)), Looked: stats.Entries, Entries: stats.Sent, Bytes: stats.Bytes, Deleted: stats.Deleted,
		Frozen: o.Frozen, Tracked: stats.Tracked,
	}, err
}

// findWriters finds the files that may be written unseen.
func (s *source) findWriters(frozen bool) error {
	err := s.mapped.addShared(s.cgroup)
	if err == nil && frozen {
		err = s.mapped.addOpen(s.cgroup)
	}
	return err
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
