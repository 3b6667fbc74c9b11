package delta

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"io"
	"runtime"
	"sync"

	"golang.org/x/sync/errgroup"
)

// segmentSize is what one core works on at a time, a multiple of every block.
const segmentSize = 2 << 20

// workers is how many cores one call uses.
func workers() int { return min(runtime.GOMAXPROCS(0), 8) }

var pool sync.Pool // of *[]byte

// getBuffer returns n bytes of any content, for pool.Put.
func getBuffer(n int) *[]byte {
	if b, ok := pool.Get().(*[]byte); ok && cap(*b) >= n {
		*b = (*b)[:n]
		return b
	}
	b := make([]byte, n)
	return &b
}

// Sign reads the size bytes of r, as far as there is data, and returns their
// signature. A file that ends before is io.ErrUnexpectedEOF. Other errors: those
// of r, of data and of ctx.
func Sign(ctx context.Context, r io.ReaderAt, size int64, data Extents) (*Signature, error) {
	l := layoutOf(size)
	if l.blocks == 0 {
		return &Signature{}, nil
	}
	raw := make([]byte, l.encoded())
	binary.BigEndian.PutUint64(raw, uint64(l.size))
	rand.Read(raw[8:headSize])
	s := newSignature(l, raw)
	if err := s.fill(ctx, r, newExtents(data, l.size)); err != nil {
		return nil, err
	}
	return s, nil
}

// fill makes the sums. What is hole between two segments with data is not read.
func (s *Signature) fill(ctx context.Context, r io.ReaderAt, data *extents) error {
	g, each := errgroup.WithContext(ctx)
	g.SetLimit(workers())
	for done := int64(0); done < s.size && each.Err() == nil; {
		first, err := data.first()
		if err != nil {
			g.Go(func() error { return err })
			break
		}
		at := first / segmentSize * segmentSize
		if first >= s.size {
			at = s.size
		}
		s.holes(done, at)
		done = min(at+segmentSize, s.size)
		data.leave(done)
		if at < s.size {
			g.Go(func() error { return s.segment(each, r, at) })
		}
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return context.Cause(ctx)
}

// segment makes the sums of the blocks of one segment.
func (s *Signature) segment(ctx context.Context, r io.ReaderAt, at int64) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	b := getBuffer(int(min(segmentSize, s.size-at)))
	defer pool.Put(b)
	if err := readFull(r, *b, at); err != nil {
		return err
	}
	for rest := *b; len(rest) > 0; {
		i := int(at / s.block)
		block := rest[:s.length(i)]
		s.put(i, block, s.strongOf(block))
		rest, at = rest[len(block):], at+s.block
	}
	return nil
}

// holes makes the sums from at to end, where there is no data.
func (s *Signature) holes(at, end int64) {
	if at >= end {
		return
	}
	zeros := make([]byte, s.block)
	all := s.strongOf(zeros)
	for i := int(at / s.block); int64(i)*s.block < end; i++ {
		n := s.length(i)
		if n < len(zeros) {
			all = s.strongOf(zeros[:n])
		}
		s.put(i, zeros[:n], all)
	}
}

// put stores the sums of block i.
func (s *Signature) put(i int, block []byte, sum strong) {
	if s.windowed(i) {
		binary.BigEndian.PutUint32(s.raw[s.at(i):], weak(rolling(block)))
	}
	copy(s.raw[s.strongAt(i):], sum[:])
}

// readFull is ReadAt of all of b.
func readFull(r io.ReaderAt, b []byte, at int64) error {
	n, err := r.ReadAt(b, at)
	if n == len(b) {
		return nil
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("read %d bytes at %d: %w", len(b), at, err)
}
