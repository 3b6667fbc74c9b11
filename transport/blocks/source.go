package blocks

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"

	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/transport"
	"github.com/vzkit/vzkit/transport/blocks/watch"
)

const (
	minShift   = 12 // of blocks of 4 KiB
	maxUnits   = 1 << 22
	unitBlocks = 64 // as many as a word has bits

	// maxRounds is how often the last pass begins again because something was
	// written. Nobody but the kernel can, and it has little to write.
	maxRounds = 10
)

// Source is the image to be moved, and what the receiver has of it.
type Source struct {
	image *os.File
	size  int64
	shift uint // a block is 1<<shift bytes
	sums  []uint64
	seed  uint64
	watch *watch.Watch // nil: nobody writes
	sync  func() error

	first   bool             // nothing has been sent
	all     bool             // everything is to be looked at
	pending map[int64]uint64 // blocks to be sent, as bits, by unit
	err     error            // of the pass that failed
}

// Sums of units that are none.
const (
	hole    = 0
	unknown = 1
)

// PassOptions describe one pass.
type PassOptions struct {
	Pass   int    // from 1
	Frozen bool   // nobody writes, and this is the last pass
	Hurry  bool   // somebody waits for its end, though it is not the last
	Codec  string // packs content: what package pack takes

	// Progress, if set, is called now and then, by one goroutine at a time. It
	// must be quick.
	Progress func(Stats)
}

// NewSource reads the open file image, whose size does not change until Close,
// and which stays the caller's. If d is not nil, it is the loop device that
// writes to the file, and sync brings out what its file system holds; d nil:
// nobody writes, and there is one pass. An error without a kind says that this
// kernel cannot watch the device, or that the file is no image of blocks.
func NewSource(image *os.File, d *watch.Device, sync func() error) (*Source, error) {
	info, err := image.Stat()
	if err != nil {
		return nil, err
	}
	size := info.Size()
	if size <= 0 || size%Block != 0 || !info.Mode().IsRegular() {
		return nil, errors.New("its size is no number of blocks")
	}
	s := &Source{image: image, size: size, shift: shiftFor(size), seed: rand.Uint64(), sync: sync, first: true, pending: map[int64]uint64{}}
	s.sums = make([]uint64, (size+s.unit()-1)/s.unit())
	if d == nil {
		s.sync = func() error { return nil }
		return s, nil
	}
	s.watch, err = watch.Open(*d, size, s.shift)
	return s, err
}

// shiftFor makes blocks as small as their number allows.
func shiftFor(size int64) uint {
	shift := uint(minShift)
	for size>>shift > maxUnits*unitBlocks {
		shift++
	}
	return shift
}

// unit is how many bytes a word of bits, and a sum, stand for.
func (s *Source) unit() int64 { return unitBlocks << s.shift }

// Size is that of the file, in bytes.
func (s *Source) Size() int64 { return s.size }

// Close ends the watch. Closing twice is fine.
func (s *Source) Close() error {
	w := s.watch
	if s.watch = nil; w == nil {
		return nil
	}
	return w.Close()
}

// Pass sends what was written since the Pass before, everything the first time:
// blocks-begin up to and including blocks-end. It does not wait for an answer.
// After an error the Source is of no further use.
func (s *Source) Pass(ctx context.Context, w FrameWriter, o PassOptions) (Stats, error) {
	if s.err != nil {
		return Stats{}, fault.New(fault.Copy, "use source after error: %w", s.err)
	}
	out := &sender{PassOptions: o, w: w, src: s, stats: Stats{Tracked: !s.first && s.watch != nil}}
	s.err = s.pass(ctx, out)
	return out.stats, s.err
}

func (s *Source) pass(ctx context.Context, out *sender) error {
	if err := writeJSON(out.w, transport.TypeBlocksBegin, passBegin{out.Pass, out.Frozen, out.Hurry, s.size}); err != nil {
		return err
	}
	for round := 1; ; round++ {
		if err := s.round(ctx, out); err != nil {
			return err
		}
		if !out.Frozen {
			break
		}
		if err := s.take(); err != nil {
			return err
		}
		if len(s.pending) == 0 && !s.all {
			break
		}
		if round == maxRounds {
			return fault.New(fault.Copy, "image %q is written while nobody uses it", s.image.Name())
		}
	}
	if err := writeJSON(out.w, transport.TypeBlocksEnd, out.stats.end()); err != nil {
		return err
	}
	return fault.Wrap(fault.Copy, out.w.Flush())
}

// round sends what is to be sent by now.
func (s *Source) round(ctx context.Context, out *sender) error {
	if err := s.sync(); err != nil {
		return imageError("sync", s.image.Name(), err)
	}
	if err := s.take(); err != nil {
		return err
	}
	if err := s.unchanged(); err != nil {
		return err
	}
	if s.all {
		out.stats.Tracked = false
	}
	if err := out.run(ctx); err != nil {
		return err
	}
	clear(s.pending)
	s.first, s.all = false, false
	return nil
}

// unchanged refuses a file whose size is another one now.
func (s *Source) unchanged() error {
	info, err := s.image.Stat()
	if err != nil {
		return imageError("look at", s.image.Name(), err)
	}
	if info.Size() != s.size {
		return fault.New(fault.Copy, "image %q changed its size", s.image.Name())
	}
	return nil
}

// take adds what was written to what is to be sent.
func (s *Source) take() error {
	if s.watch == nil {
		return nil
	}
	lost, err := s.watch.Take(func(unit int64, set uint64) { s.pending[unit] |= set })
	if err != nil {
		return imageError("watch", s.image.Name(), err)
	}
	s.all = s.all || lost
	return nil
}
