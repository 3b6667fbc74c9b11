package memory

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"

	"github.com/zeebo/xxh3"
)

var (
	zeroPage   [pageSize]byte
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// encoder turns the pages of one stream into batches. It belongs to the
// goroutine that gives pages.
type encoder struct {
	seed   uint64
	limit  int // bytes in a batch
	table  *table
	cache  *cache
	next   func(*batch) *batch // takes a batch on its way, gives one to fill
	counts *counters

	batch  *batch
	run    run // not yet in the batch if it has pages
	cursor cursor
	sent   uint64 // pages
	sum    uint32 // of references and deltas
}

// zero sends a run of zero pages.
func (e *encoder) zero(p place, count uint64) {
	e.table.forget(p, count, e.cache.drop)
	e.extend(kindZero, p, place{}, count)
}

// page sends one page with data, which a zero page is only if it is whole.
func (e *encoder) page(p place, data []byte, whole bool) {
	if !whole && bytes.Equal(data, zeroPage[:]) {
		e.zero(p, 1)
		return
	}
	g := e.table.ensure(p)
	if g == nil {
		e.raw(p, data)
		return
	}
	hash, i := xxh3.Hash128Seed(data, e.seed), int(p.page%groupPages)
	if g.hash[i] == hash {
		e.counts.same.Add(1)
		return
	}
	e.changed(p, data, g, hash)
	again := g.hash[i] != (xxh3.Uint128{})
	g.hash[i] = hash
	if base := e.cache.get(g.slot[i], p); base != nil {
		copy(base, data)
	} else {
		g.slot[i] = e.cache.put(p, data, again)
	}
}

// changed sends content that the receiver does not have at p.
func (e *encoder) changed(p place, data []byte, g *group, hash xxh3.Uint128) {
	if from, ok := e.table.find(hash); ok {
		e.reference(p, from, data)
		return
	}
	i := int(p.page % groupPages)
	e.table.remember(hash, e.table.recent, i)
	if base := e.cache.get(g.slot[i], p); base == nil || !e.delta(p, base, data) {
		e.raw(p, data)
	}
}

func (e *encoder) raw(p place, data []byte) {
	e.room(pageSize)
	e.extend(kindRaw, p, place{}, 1)
	e.batch.raw = append(e.batch.raw, data...)
}

func (e *encoder) reference(p, from place, data []byte) {
	e.room(0)
	e.extend(kindReference, p, from, 1)
	e.sum = crc32.Update(e.sum, castagnoli, data)
}

// delta sends the page as a patch, if that pays.
func (e *encoder) delta(p place, base, data []byte) bool {
	if rewritten(base, data) {
		return false
	}
	var space [2 * maxPatch]byte
	patch, ok := appendPatch(space[:0], base, data)
	if !ok {
		return false
	}
	e.room(len(patch) + binary.MaxVarintLen16)
	e.extend(kindDelta, p, place{}, 1)
	e.batch.patches = binary.AppendUvarint(e.batch.patches, uint64(len(patch)))
	e.batch.patches = append(e.batch.patches, patch...)
	e.sum = crc32.Update(e.sum, castagnoli, data)
	return true
}

// room makes room for one more page that takes that many bytes, with the run
// that ends before it and its own.
func (e *encoder) room(size int) {
	if e.batch.content == maxContent || e.batch.size()+size+2*maxRunSize > e.limit {
		e.seal()
	}
	e.batch.content++
}

// extend adds pages to the current run, or begins another.
func (e *encoder) extend(k kind, p, from place, count uint64) {
	r := &e.run
	follows := r.kind == k && r.at.plus(r.count) == p && r.count+count < 1<<32 &&
		(k != kindReference || r.from.plus(r.count) == from)
	if r.count == 0 || !follows {
		e.closeRun()
		if e.batch.size()+maxRunSize > e.limit {
			e.seal()
		}
		*r = run{kind: k, at: p, from: from}
	}
	r.count += count
}

// closeRun puts the current run into the batch.
func (e *encoder) closeRun() {
	if e.run.count == 0 {
		return
	}
	e.batch.runs = appendRun(e.batch.runs, e.run, &e.cursor)
	e.counts.add(e.run.kind, e.run.count)
	e.sent += e.run.count
	e.run.count = 0
}

// seal sends the batch on its way and begins another.
func (e *encoder) seal() {
	e.closeRun()
	e.batch = e.next(e.batch)
	e.cursor = cursor{}
}

// flush sends what there is; done is told when it is written.
func (e *encoder) flush(done chan error) {
	e.closeRun()
	e.batch.flush = done
	e.seal()
}

// mark puts mark n behind all there is.
func (e *encoder) mark(n uint64) {
	e.closeRun()
	b := make([]byte, 0, markSize)
	b = append(b, markFrame)
	b = binary.BigEndian.AppendUint64(b, n)
	b = binary.BigEndian.AppendUint64(b, e.sent)
	e.batch.mark = binary.BigEndian.AppendUint32(b, e.sum)
}
