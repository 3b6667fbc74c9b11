package memory

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/transport"
)

// kind is how a run of pages goes over the wire.
type kind uint8

const (
	kindRaw       kind = 0
	kindZero      kind = 1
	kindReference kind = 2
	kindDelta     kind = 3
)

const (
	batchFrame = 1
	markFrame  = 2

	batchHead = 9
	markSize  = 21

	maxContent = 8192 // pages in a batch that are not zero
	maxRunSize = 40   // bytes that a run takes at most, encoded
)

// run is a run of pages of one kind.
type run struct {
	kind  kind
	count uint64
	at    place
	from  place // of a run of references: the first page referred to
}

// cursor is what the runs of a batch are relative to.
type cursor struct{ at, from place }

// pass moves c behind r.
func (c *cursor) pass(r run) {
	c.at = r.at.plus(r.count)
	if r.kind == kindReference {
		c.from = r.from.plus(r.count)
	}
}

// appendRun encodes r and moves c behind it.
func appendRun(b []byte, r run, c *cursor) []byte {
	head := r.count<<3 | uint64(r.kind)
	moved := r.at != c.at
	if moved {
		head |= 1 << 2
	}
	b = binary.AppendUvarint(b, head)
	if moved {
		b = appendPlace(b, r.at, c.at)
	}
	if r.kind == kindReference {
		b = appendPlace(b, r.from, c.from)
	}
	c.pass(r)
	return b
}

// reader reads numbers from the front of b.
type reader struct{ b []byte }

func (r *reader) varint() (uint64, error) {
	n, size := binary.Uvarint(r.b)
	if size <= 0 {
		return 0, malformed("varint cut or too long")
	}
	r.b = r.b[size:]
	return n, nil
}

// run is appendRun's counterpart. The run is within its address space.
func (r *reader) run(c *cursor) (run, error) {
	head, err := r.varint()
	if err != nil {
		return run{}, err
	}
	n := run{kind: kind(head & 3), count: head >> 3, at: c.at}
	if n.count == 0 || n.count > math.MaxUint32 {
		return run{}, malformed("run of %d pages", n.count)
	}
	if head&(1<<2) != 0 {
		if n.at, err = r.place(c.at); err != nil {
			return run{}, err
		}
	}
	if n.kind == kindReference {
		if n.from, err = r.place(c.from); err != nil {
			return run{}, err
		}
	}
	if max(n.at.page, n.from.page)+n.count > maxPage {
		return run{}, malformed("%d pages at page %#x overflow", n.count, max(n.at.page, n.from.page))
	}
	c.pass(n)
	return n, nil
}

// malformed is a protocol error about a frame.
func malformed(format string, args ...any) error {
	return fault.New(fault.Protocol, "frame %s: %w", transport.TypeMemory, fmt.Errorf(format, args...))
}
