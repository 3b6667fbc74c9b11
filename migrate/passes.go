package migrate

import (
	"context"
	"time"

	"github.com/vzkit/vzkit/internal/fault"
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
