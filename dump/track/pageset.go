package track

import (
	"maps"
	"math/bits"
	"slices"
)

const (
	chunkPages = 512 // pages of a chunk
	chunkBytes = chunkPages * PageSize
	wordBytes  = 64 * PageSize
)

// pageSet is a set of pages by address: 32 KiB for each GiB.
type pageSet struct {
	chunks map[uint64]*[chunkPages / 64]uint64
}

// span is [start, end) of addresses or offsets.
type span struct{ start, end uint64 }

func (s span) pages() uint64 { return (s.end - s.start) / PageSize }

// mask has the bits of the word at address that are in [start, end).
func mask(address, start, end uint64) uint64 {
	m := ^uint64(0)
	if start > address {
		m <<= (start - address) / PageSize
	}
	if rest := (end - address) / PageSize; rest < 64 {
		m &= 1<<rest - 1
	}
	return m
}

// wordsOf calls do for each word of a chunk that has pages of [start, end).
func wordsOf(number, start, end uint64, do func(word int, mask uint64)) {
	base := number * chunkBytes
	first := max(start, base) &^ (wordBytes - 1)
	for at := first; at < min(end, base+chunkBytes); at += wordBytes {
		do(int(at-base)/wordBytes, mask(at, start, end))
	}
}

// add puts the pages of [start, end) into the set.
func (p *pageSet) add(start, end uint64) {
	if p.chunks == nil {
		p.chunks = map[uint64]*[chunkPages / 64]uint64{}
	}
	for n := start / chunkBytes; n*chunkBytes < end; n++ {
		c := p.chunks[n]
		if c == nil {
			c = new([chunkPages / 64]uint64)
			p.chunks[n] = c
		}
		wordsOf(n, start, end, func(w int, m uint64) { c[w] |= m })
	}
}

// remove takes the pages of [start, end) out of the set. It returns how many
// there were, and the span from the first to the last of them.
func (p *pageSet) remove(start, end uint64) (was span, pages uint64) {
	r := removal{span: span{start, end}, was: span{^uint64(0), 0}}
	first, last := start/chunkBytes, (end+chunkBytes-1)/chunkBytes
	if last-first > uint64(len(p.chunks)) {
		for n := range p.chunks {
			if n >= first && n < last {
				p.removeChunk(&r, n)
			}
		}
		return r.was, r.pages
	}
	for n := first; n < last; n++ {
		p.removeChunk(&r, n)
	}
	return r.was, r.pages
}

// removal is a removal on its way through the chunks.
type removal struct {
	span
	was   span
	pages uint64
}

func (p *pageSet) removeChunk(r *removal, n uint64) {
	c := p.chunks[n]
	if c == nil {
		return
	}
	wordsOf(n, r.start, r.end, func(w int, m uint64) {
		if gone := c[w] & m; gone != 0 {
			r.pages += uint64(bits.OnesCount64(gone))
			at := n*chunkBytes + uint64(w)*wordBytes
			r.was.start = min(r.was.start, at+uint64(bits.TrailingZeros64(gone))*PageSize)
			r.was.end = max(r.was.end, at+uint64(64-bits.LeadingZeros64(gone))*PageSize)
			c[w] &^= m
		}
	})
	if *c == [chunkPages / 64]uint64{} {
		delete(p.chunks, n)
	}
}

// missing calls do for the spans of [start, end) that are not in the set.
func (p *pageSet) missing(start, end uint64, do func(span)) { p.runs(start, end, false, do) }

// present calls do for the spans of [start, end) that are in the set.
func (p *pageSet) present(start, end uint64, do func(span)) { p.runs(start, end, true, do) }

// runs calls do for the longest spans of [start, end) that are all in the set,
// or all not in it.
func (p *pageSet) runs(start, end uint64, in bool, do func(span)) {
	open := start
	close := func(at uint64) {
		if open < at {
			do(span{open, at})
		}
	}
	for at := start; at < end; {
		step, has := p.look(at)
		step = min(step, end)
		if has != in {
			close(at)
			open = step
		}
		at = step
	}
	close(end)
}

// look tells whether the page at an address is in the set, and up to where the
// same holds at least.
func (p *pageSet) look(at uint64) (until uint64, has bool) {
	c := p.chunks[at/chunkBytes]
	if c == nil {
		return at&^(chunkBytes-1) + chunkBytes, false
	}
	word := at &^ (wordBytes - 1)
	shift := (at - word) / PageSize
	w := c[at%chunkBytes/wordBytes] >> shift
	has = w&1 != 0
	if has {
		w = ^w
	}
	n := min(uint64(bits.TrailingZeros64(w)), 64-shift)
	return at + n*PageSize, has
}

// numbers returns the numbers of the chunks that have pages, ascending.
func (p *pageSet) numbers() []uint64 { return slices.Sorted(maps.Keys(p.chunks)) }
