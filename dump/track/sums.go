package track

import (
	"bytes"
	"sync"

	"github.com/zeebo/xxh3"
)

var zeroPage [PageSize]byte

// sum is the hash of a page's content.
func sum(page []byte) uint64 { return max(xxh3.Hash(page), 1) }

// sumOrZero is the same, but 0 for a page of zeros.
func sumOrZero(page []byte) uint64 {
	if bytes.Equal(page, zeroPage[:]) {
		return 0
	}
	return sum(page)
}

// sumTable has the sums of the pages that were passed on: 8 bytes a page, 0 for
// pages that were not. Different pages may be used at the same
// time.
type sumTable struct {
	mu     sync.Mutex
	chunks map[uint64]*[chunkPages]uint64
}

func newSums() *sumTable { return &sumTable{chunks: map[uint64]*[chunkPages]uint64{}} }

// changed notes the sum of the page at an address and tells whether it is a
// new one.
func (t *sumTable) changed(address, sum uint64) bool {
	n := address / chunkBytes
	t.mu.Lock()
	c := t.chunks[n]
	if c == nil && sum != 0 {
		c = new([chunkPages]uint64)
		t.chunks[n] = c
	}
	t.mu.Unlock()
	if c == nil {
		return false
	}
	at := &c[address%chunkBytes/PageSize]
	if *at == sum {
		return false
	}
	*at = sum
	return true
}

// remove forgets [start, end). It returns how many pages were not zero, and the
// span from the first to the last of them.
func (t *sumTable) remove(start, end uint64) (was span, pages uint64) {
	was = span{^uint64(0), 0}
	t.mu.Lock()
	defer t.mu.Unlock()
	drop := func(n uint64, c *[chunkPages]uint64) {
		base := n * chunkBytes
		for at := max(start, base); at < min(end, base+chunkBytes); at += PageSize {
			s := &c[(at-base)/PageSize]
			if *s != 0 {
				pages, *s = pages+1, 0
				was.start, was.end = min(was.start, at), max(was.end, at+PageSize)
			}
		}
		if start <= base && end >= base+chunkBytes {
			delete(t.chunks, n)
		}
	}
	first, last := start/chunkBytes, (end+chunkBytes-1)/chunkBytes
	if last-first > uint64(len(t.chunks)) {
		for n, c := range t.chunks {
			if n >= first && n < last {
				drop(n, c)
			}
		}
		return was, pages
	}
	for n := first; n < last; n++ {
		if c := t.chunks[n]; c != nil {
			drop(n, c)
		}
	}
	return was, pages
}
