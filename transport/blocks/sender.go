package blocks

import (
	"context"
	"errors"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/transport/pack"
)

// sender sends one pass: workers read, compare and pack a unit at a time, each
// of its own, and write what has to go.
type sender struct {
	PassOptions
	src  *Source
	link pack.Link

	mu    sync.Mutex
	w     FrameWriter
	stats Stats
}

// work is a unit of the file.
type work struct {
	number  int64
	set     uint64 // the blocks that count
	compare bool   // with what was sent
}

// run sends what is pending, or what differs of everything.
func (s *sender) run(parent context.Context) error {
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)
	todo := make(chan work)
	var ends sync.WaitGroup
	for range max(2, runtime.GOMAXPROCS(0)) {
		packer, err := pack.New(s.Codec, &s.link)
		if err != nil {
			cancel(err)
			break
		}
		k := &worker{sender: s, packer: packer, buf: alignedBuffer(int(s.src.unit()))}
		ends.Go(func() {
			for u := range todo {
				if err := k.unit(u); err != nil {
					cancel(err)
					return
				}
			}
		})
	}
	err := s.list(ctx, todo)
	close(todo)
	ends.Wait()
	if parent.Err() != nil {
		return fault.Ended(parent)
	}
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// list names the units that are to be looked at.
func (s *sender) list(ctx context.Context, todo chan<- work) error {
	put := func(u work) error {
		select {
		case todo <- u:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	if !s.src.first && !s.src.all {
		for number, set := range s.src.pending {
			if err := put(work{number: number, set: set}); err != nil {
				return err
			}
		}
		return nil
	}
	var data, end int64 // an extent with data, the next one
	for number := range s.src.sums {
		from := int64(number) * s.src.unit()
		var err error
		if end <= from {
			if data, end, err = s.src.nextData(from, s.src.size); err != nil {
				return err
			}
		}
		if data < from+s.src.unit() && data < end || s.src.sums[number] != hole {
			if err := put(work{int64(number), ^uint64(0), !s.src.first}); err != nil {
				return err
			}
		}
	}
	return nil
}

// nextData finds the first data from one offset on, before another, where it is
// empty if there is none (lseek(2)).
func (s *Source) nextData(at, limit int64) (from, to int64, err error) {
	from, err = unix.Seek(int(s.image.Fd()), at, unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) || err == nil && from >= limit {
		return limit, limit, nil
	}
	if err == nil {
		to, err = unix.Seek(int(s.image.Fd()), from, unix.SEEK_HOLE)
	}
	if err != nil {
		return 0, 0, imageError("seek in", s.image.Name(), err)
	}
	return from, min(to, limit), nil
}

// write has one worker write at a time.
func (s *sender) write(do func() error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := do(); err != nil {
		return fault.Wrap(fault.Copy, err)
	}
	if s.Progress != nil {
		s.Progress(s.stats)
	}
	return nil
}

// count adds blocks that were looked at.
func (s *sender) count(looked uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.Looked += looked
}
