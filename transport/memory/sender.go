package memory

import (
	"errors"
	"math/rand/v2"

	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/transport"
)

// Options are a sender's.
type Options struct {
	Codec      string // "auto" (or empty), "none", "lz4", "zstd"
	DeltaCache int    // bytes for the content of pages often written, on all streams; 0: no deltas
}

// DefaultDeltaCache is the DeltaCache to use if nobody asks for another.
const DefaultDeltaCache = 64 << 20

// MaxStreams is the most connections of one sender.
const MaxStreams = 16

// MaxPages is the most pages with data that one call of Pages takes.
const MaxPages = 128

const (
	granulePages = 1 << 8 // 1 MiB goes to a stream in turn
	minBatch     = 128 << 10
)

// Sender sends pages. One goroutine uses it at a time, except for Counts.
type Sender struct {
	streams []*stream
	mark    uint64
	closed  bool
}

var errClosed = errors.New("memory sender closed")

// NewSender returns a Sender over one or more connections, which may carry
// other frames as well. Close it. The error is about Options.
func NewSender(w []FrameWriter, o Options) (*Sender, error) {
	if len(w) == 0 || len(w) > MaxStreams {
		return nil, fault.New(fault.BadValue, "%d streams, want 1 to %d", len(w), MaxStreams)
	}
	s := new(Sender)
	seed, limit := rand.Uint64(), max(transport.MaxPayload/len(w), minBatch)
	for _, one := range w {
		t, err := newStream(one, o, len(w), limit, seed)
		if err != nil {
			s.Close()
			return nil, err
		}
		s.streams = append(s.streams, t)
	}
	return s, nil
}

// Pages sends count pages from address on: data, at most MaxPages, which it
// does not keep, or if data is nil that they are zero or not there, any number
// (with several connections such a run is cut at every MiB). It blocks while a
// connection is behind. Errors are those of the connections, of any
// page before as well.
func (s *Sender) Pages(space, address uint64, count uint32, data []byte) error {
	return s.send(space, address, count, data, false)
}

// Whole is Pages for data that is to be there even if it is zero: at the
// receiver it hides something else.
func (s *Sender) Whole(space, address uint64, count uint32, data []byte) error {
	return s.send(space, address, count, data, true)
}

func (s *Sender) send(space, address uint64, count uint32, data []byte, whole bool) error {
	if err := s.check(address, count, data); err != nil {
		return err
	}
	p, left := place{space, address / pageSize}, uint64(count)
	for left > 0 {
		n := left
		t := s.streams[0]
		if len(s.streams) > 1 {
			granule := p.page / granulePages
			t = s.streams[granule%uint64(len(s.streams))]
			n = min(n, (granule+1)*granulePages-p.page)
		}
		if err := t.err(); err != nil {
			return err
		}
		data = t.pages(p, n, data, whole)
		p, left = p.plus(n), left-n
	}
	return nil
}

// pages sends n pages of a run, and returns the data of those after them.
func (t *stream) pages(p place, n uint64, data []byte, whole bool) []byte {
	if data == nil {
		t.encoder.zero(p, n)
		return nil
	}
	for i := range n {
		t.encoder.page(p.plus(i), data[:pageSize], whole)
		data = data[pageSize:]
	}
	return data
}

// check refuses what is not a run.
func (s *Sender) check(address uint64, count uint32, data []byte) error {
	switch {
	case s.closed:
		return errClosed
	case count == 0:
		return fault.New(fault.BadValue, "no pages at %#x", address)
	case address%pageSize != 0:
		return fault.New(fault.BadValue, "address %#x not page-aligned", address)
	case address/pageSize+uint64(count) > maxPage:
		return fault.New(fault.BadValue, "%d pages at %#x overflow", count, address)
	case data != nil && (count > MaxPages || len(data) != int(count)*pageSize):
		return fault.New(fault.BadValue, "%d bytes for %d pages, at most %d", len(data), count, MaxPages)
	}
	return nil
}

// Flush returns when everything given so far is written to the connections,
// and their buffers are, too.
func (s *Sender) Flush() error {
	if s.closed {
		return errClosed
	}
	done := make(chan error, len(s.streams))
	for _, t := range s.streams {
		t.encoder.flush(done)
	}
	var first error
	for range s.streams {
		if err := <-done; first == nil {
			first = err
		}
	}
	return first
}

// Mark ends a round: it flushes, with mark n behind the pages of each
// connection. The numbers ascend.
func (s *Sender) Mark(n uint64) error {
	if s.closed {
		return errClosed
	}
	if n <= s.mark {
		return fault.New(fault.BadValue, "mark %d after %d", n, s.mark)
	}
	s.mark = n
	for _, t := range s.streams {
		t.encoder.mark(n)
	}
	return s.Flush()
}

// Counts are those of all streams. It may be called at any time, from any
// goroutine.
func (s *Sender) Counts() (n Counts) {
	for _, t := range s.streams {
		n = n.plus(t.counts.read())
	}
	return n
}

// Close ends the sender, not its connections, and frees its memory. What was
// not flushed may be lost. It waits for a write that blocks: close the
// connection first to give up. Closing twice is fine.
func (s *Sender) Close() {
	if s.closed {
		return
	}
	s.closed = true
	for _, t := range s.streams {
		t.close()
	}
}
