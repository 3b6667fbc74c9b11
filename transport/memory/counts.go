package memory

import "sync/atomic"

// Counts are pages by kind, and bytes. Pages that wait in a batch or in a run
// are not in it before Flush.
type Counts struct {
	Raw, Zero, Reference, Delta uint64
	Same                        uint64 // not sent, since the receiver has them
	Plain                       uint64 // bytes of all these pages
	Wire                        uint64 // bytes of whole frames; at the receiver those of unpacked payloads
}

// plus adds up the streams.
func (c Counts) plus(d Counts) Counts {
	return Counts{
		Raw: c.Raw + d.Raw, Zero: c.Zero + d.Zero, Reference: c.Reference + d.Reference,
		Delta: c.Delta + d.Delta, Same: c.Same + d.Same, Plain: c.Plain + d.Plain, Wire: c.Wire + d.Wire,
	}
}

// counters are those of one stream, read from any goroutine.
type counters struct {
	kinds [kindDelta + 1]atomic.Uint64
	same  atomic.Uint64
	wire  atomic.Uint64
}

func (c *counters) add(k kind, pages uint64) { c.kinds[k].Add(pages) }

// sent are all pages that went over.
func (c *counters) sent() (pages uint64) {
	for k := range c.kinds {
		pages += c.kinds[k].Load()
	}
	return pages
}

func (c *counters) read() Counts {
	n := Counts{
		Raw: c.kinds[kindRaw].Load(), Zero: c.kinds[kindZero].Load(),
		Reference: c.kinds[kindReference].Load(), Delta: c.kinds[kindDelta].Load(),
		Same: c.same.Load(), Wire: c.wire.Load(),
	}
	n.Plain = (n.Raw + n.Zero + n.Reference + n.Delta + n.Same) * pageSize
	return n
}
