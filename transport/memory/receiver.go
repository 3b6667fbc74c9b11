package memory

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"sync/atomic"
)

// Store is where pages arrive. Calls for different pages come at the same time
// if there are several receivers. Errors end the frame and pass through.
type Store interface {
	// Put replaces count pages from address on. A nil data makes them zero;
	// then count may be anything. It keeps nothing of data.
	Put(space, address uint64, count uint32, data []byte) error
	// Get copies one page that was put last with data, or tells that there is
	// none.
	Get(space, address uint64, page []byte) (bool, error)
}

// Receiver takes the frames of one connection. One goroutine uses it at a time,
// except for Counts and Mark.
type Receiver struct {
	store  Store
	pages  []byte // made of references or patches
	sum    uint32
	mark   atomic.Uint64
	counts counters
}

// NewReceiver returns a Receiver that puts pages into store.
func NewReceiver(store Store) *Receiver {
	return &Receiver{store: store, pages: make([]byte, MaxPages*pageSize)}
}

// Mark is the last mark that arrived, 0 before the first: all pages before it
// are in the store. It may be called at any time, from any goroutine.
func (r *Receiver) Mark() uint64 { return r.mark.Load() }

// Counts may be called at any time, from any goroutine.
func (r *Receiver) Counts() Counts { return r.counts.read() }

// Frame takes the payload of one frame of type memory. Errors have kind
// fault.Protocol if the payload is at fault, and pages before the fault may be
// in the store by then; the connection is over. Others are the store's.
func (r *Receiver) Frame(payload []byte) error {
	r.counts.wire.Add(uint64(len(payload)))
	switch {
	case len(payload) >= batchHead && payload[0] == batchFrame:
		return r.batch(payload)
	case len(payload) == markSize && payload[0] == markFrame:
		return r.marked(payload)
	}
	return malformed("neither batch nor mark, %d bytes", len(payload))
}

// marked compares what arrived with what was sent.
func (r *Receiver) marked(b []byte) error {
	n, pages := binary.BigEndian.Uint64(b[1:]), binary.BigEndian.Uint64(b[9:])
	sum := binary.BigEndian.Uint32(b[17:])
	switch {
	case n <= r.mark.Load():
		return malformed("mark %d after %d", n, r.mark.Load())
	case pages != r.counts.sent():
		return malformed("mark %d: %d pages arrived of %d", n, r.counts.sent(), pages)
	case sum != r.sum:
		return malformed("mark %d: pages differ from those sent: checksum %08x, want %08x", n, r.sum, sum)
	}
	r.mark.Store(n)
	return nil
}

// input is a batch being read.
type input struct {
	runs, patches reader
	raw           []byte
	cursor        cursor
	content       uint64
}

func (r *Receiver) batch(b []byte) error {
	runs, patches := uint64(binary.BigEndian.Uint32(b[1:])), uint64(binary.BigEndian.Uint32(b[5:]))
	b = b[batchHead:]
	if runs+patches > uint64(len(b)) {
		return malformed("%d bytes of runs and %d of patches, %d left", runs, patches, len(b))
	}
	in := input{runs: reader{b[:runs]}, patches: reader{b[runs : runs+patches]}, raw: b[runs+patches:]}
	for len(in.runs.b) > 0 {
		if err := r.run(&in); err != nil {
			return err
		}
	}
	if n := len(in.patches.b) + len(in.raw); n > 0 {
		return malformed("%d bytes behind the last run", n)
	}
	return nil
}

// run reads the next run and puts its pages.
func (r *Receiver) run(in *input) error {
	n, err := in.runs.run(&in.cursor)
	if err != nil {
		return err
	}
	if n.kind != kindZero {
		if in.content += n.count; in.content > maxContent {
			return malformed("%d pages, at most %d", in.content, maxContent)
		}
	}
	switch n.kind {
	case kindRaw:
		err = r.raw(n, in)
	case kindZero:
		err = r.put(n.at, n.count, nil)
	case kindReference:
		err = r.references(n)
	case kindDelta:
		err = r.deltas(n, in)
	}
	if err == nil {
		r.counts.add(n.kind, n.count)
	}
	return err
}

func (r *Receiver) raw(n run, in *input) error {
	size := n.count * pageSize
	if size > uint64(len(in.raw)) {
		return malformed("%d raw pages in %d bytes", n.count, len(in.raw))
	}
	data := in.raw[:size]
	in.raw = in.raw[size:]
	return r.put(n.at, n.count, data)
}

// references acts page by page: a page may refer to one just before it, so as
// many are copied at a time as lie between the two.
func (r *Receiver) references(n run) error {
	step := uint64(MaxPages)
	if n.from.space == n.at.space && n.from.page < n.at.page {
		step = min(step, n.at.page-n.from.page)
	}
	return r.build(n, step, func(i uint64, page []byte) error { return r.get(n.from.plus(i), page) })
}

func (r *Receiver) deltas(n run, in *input) error {
	return r.build(n, MaxPages, func(i uint64, page []byte) error {
		if err := r.get(n.at.plus(i), page); err != nil {
			return err
		}
		return in.patches.patch(page)
	})
}

// build puts the pages of a run, step at a time, which make fills in.
func (r *Receiver) build(n run, step uint64, make func(i uint64, page []byte) error) error {
	for first := uint64(0); first < n.count; first += step {
		count := min(step, n.count-first)
		data := r.pages[:count*pageSize]
		for i := range count {
			if err := make(first+i, data[i*pageSize:][:pageSize]); err != nil {
				return err
			}
		}
		r.sum = crc32.Update(r.sum, castagnoli, data)
		if err := r.put(n.at.plus(first), count, data); err != nil {
			return err
		}
	}
	return nil
}

// get reads a page that must be there.
func (r *Receiver) get(p place, page []byte) error {
	ok, err := r.store.Get(p.space, p.address(), page)
	if err != nil {
		return fmt.Errorf("read page %#x of space %d: %w", p.address(), p.space, err)
	}
	if !ok {
		return malformed("page %#x of space %d refers to none", p.address(), p.space)
	}
	return nil
}

func (r *Receiver) put(p place, count uint64, data []byte) error {
	if err := r.store.Put(p.space, p.address(), uint32(count), data); err != nil {
		return fmt.Errorf("write %d pages at %#x of space %d: %w", count, p.address(), p.space, err)
	}
	return nil
}
