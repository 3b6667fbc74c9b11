package memory

import (
	"sync/atomic"

	"github.com/vzkit/vzkit/transport"
	"github.com/vzkit/vzkit/transport/pack"
)

// FrameWriter is what batches are written to, a *transport.Conn.
type FrameWriter interface {
	transport.Busier
	WriteEncoded(t transport.Type, codec transport.Codec, plain int, parts ...[]byte) error
	Flush() error
}

// window is the number of batches of one stream in memory: one being filled,
// one packed, one written.
const window = 3

// stream is the way of batches to one connection: one goroutine packs, one
// writes, in order.
type stream struct {
	encoder encoder
	counts  counters
	link    pack.Link
	failed  atomic.Pointer[error] // the first error of the writing side

	empty   chan *batch
	packing chan *batch
	writing chan *batch
	done    chan struct{}
}

// newStream starts a stream; close ends it. Batches have at most limit bytes.
func newStream(w FrameWriter, o Options, streams, limit int, seed uint64) (*stream, error) {
	s := &stream{
		empty:   make(chan *batch, window),
		packing: make(chan *batch, window),
		writing: make(chan *batch, window),
		done:    make(chan struct{}),
	}
	p, err := pack.New(o.Codec, &s.link)
	if err != nil {
		return nil, err
	}
	for range window {
		b := new(batch)
		b.reset()
		s.empty <- b
	}
	s.encoder = encoder{
		seed: seed, limit: limit, counts: &s.counts, next: s.pass, batch: <-s.empty,
		table: newTable(streams), cache: newCache(o.DeltaCache / streams),
	}
	go s.pack(p)
	go s.write(w)
	return s, nil
}

// pass sends a batch on its way and waits for an empty one.
func (s *stream) pass(b *batch) *batch {
	s.packing <- b
	return <-s.empty
}

func (s *stream) pack(p *pack.Packer) {
	for b := range s.packing {
		if s.err() == nil {
			s.fail(b.pack(p))
		}
		s.writing <- b
	}
	close(s.writing)
}

// write writes batches. After an error it only empties them, so that whoever
// gives pages comes to see the error.
func (s *stream) write(w FrameWriter) {
	for b := range s.writing {
		if s.err() == nil {
			n, err := b.write(w, &s.link)
			s.counts.wire.Add(uint64(n))
			s.fail(err)
		}
		if b.flush != nil {
			b.flush <- s.err()
		}
		b.reset()
		s.empty <- b
	}
	close(s.done)
}

func (s *stream) fail(err error) {
	if err != nil {
		s.failed.CompareAndSwap(nil, &err)
	}
}

func (s *stream) err() error {
	if p := s.failed.Load(); p != nil {
		return *p
	}
	return nil
}

// close waits for what is on its way; what is not flushed is dropped.
func (s *stream) close() {
	close(s.packing)
	<-s.done
	s.encoder.table.free()
	s.encoder.cache.free()
}
