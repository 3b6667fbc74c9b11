package memory

import (
	"math/bits"

	"github.com/zeebo/xxh3"
)

const (
	groupPages = 32       // pages in a group
	maxGroups  = 48 << 10 // of all tables of a sender: 1.5 Mi pages, 31 MiB
	chunk      = 512      // groups allocated at a time
	bucket     = 8        // hints that are looked at together, a cache line
)

// group is what the receiver has at neighbouring places.
type group struct {
	hash [groupPages]xxh3.Uint128 // of the content; 0: zero, or not known
	slot [groupPages]uint32       // where the cache may have the content
	key  groupKey
}

type groupKey struct{ space, number uint64 }

func keyOf(p place) groupKey { return groupKey{p.space, p.page / groupPages} }

// at is the place of page i.
func (g *group) at(i int) place { return place{g.key.space, g.key.number*groupPages + uint64(i)} }

// table knows the hash of the content that the receiver has at each place sent
// so far, and finds a place by hash. Beyond its size the oldest groups go.
type table struct {
	max    int
	index  map[groupKey]uint32 // number of the group
	chunks []arena[group]
	next   int // group to take next, then in turn
	used   int // groups taken so far
	hints  arena[hint]
	recent uint32 // the group last looked for
}

// hint says where content with a hash was sent; the group there knows whether
// it still is.
type hint struct {
	tag uint32 // of the hash
	id  uint32 // 1 + group number * groupPages + page; 0: none
}

func newTable(shards int) *table {
	return &table{
		max:   max(maxGroups/shards, chunk),
		index: make(map[groupKey]uint32),
	}
}

func (t *table) group(n uint32) *group { return &t.chunks[n/chunk].all[n%chunk] }

// lookup finds the group of p, or nil.
func (t *table) lookup(p place) *group {
	key := keyOf(p)
	if t.used > 0 {
		if g := t.group(t.recent); g.key == key {
			return g
		}
	}
	n, ok := t.index[key]
	if !ok {
		return nil
	}
	t.recent = n
	return t.group(n)
}

// ensure is lookup, and makes the group if there is none. It is nil only if
// there is no memory at all.
func (t *table) ensure(p place) *group {
	if g := t.lookup(p); g != nil {
		return g
	}
	if t.next/chunk == len(t.chunks) && !t.grow() {
		t.next = 0
	}
	if len(t.chunks) == 0 {
		return nil
	}
	n := uint32(t.next)
	g := t.group(n)
	if t.next < t.used {
		delete(t.index, g.key)
	} else {
		t.used++
	}
	*g = group{key: keyOf(p)}
	t.index[g.key], t.recent = n, n
	t.next++
	return g
}

// grow adds a chunk, and hints to go with it.
func (t *table) grow() bool {
	if (len(t.chunks)+1)*chunk > t.max {
		return false
	}
	c := allocate[group](chunk)
	if c.all == nil {
		return false
	}
	t.chunks = append(t.chunks, c)
	if pages := len(t.chunks) * chunk * groupPages; len(t.hints.all)*3/4 < pages {
		t.growHints(pages)
	}
	return true
}

// growHints makes room for the hints of that many pages, with a quarter to
// spare, and fills them again from the groups.
func (t *table) growHints(pages int) {
	more := allocate[hint](1 << bits.Len(uint(pages*4/3-1)))
	if more.all == nil {
		return
	}
	t.hints.free()
	t.hints = more
	for _, n := range t.index {
		for i, h := range t.group(n).hash {
			if h != (xxh3.Uint128{}) {
				t.remember(h, n, i)
			}
		}
	}
}

func (t *table) bucket(h xxh3.Uint128) []hint {
	if len(t.hints.all) == 0 {
		return nil
	}
	i := int(h.Lo) & (len(t.hints.all) - 1) &^ (bucket - 1)
	return t.hints.all[i : i+bucket]
}

// find returns a place that has content with hash h.
func (t *table) find(h xxh3.Uint128) (place, bool) {
	for _, x := range t.bucket(h) {
		if x.id == 0 || x.tag != uint32(h.Hi) {
			continue
		}
		g, i := t.group((x.id-1)/groupPages), int(x.id-1)%groupPages
		if g.hash[i] == h {
			return g.at(i), true
		}
	}
	return place{}, false
}

// remember makes page i of group n the place to find for h. It takes an empty
// hint, or one whose content has gone, or any.
func (t *table) remember(h xxh3.Uint128, n uint32, i int) {
	all := t.bucket(h)
	if all == nil {
		return
	}
	best := int(h.Hi>>32) % bucket
	for k, x := range all {
		if x.id == 0 || x.tag == uint32(h.Hi) {
			best = k
			break
		}
	}
	all[best] = hint{uint32(h.Hi), n*groupPages + uint32(i) + 1}
}

// forget makes the content of count pages from p on unknown, and calls gone
// with each page that the cache may have.
func (t *table) forget(p place, count uint64, gone func(place, uint32)) {
	if count/groupPages > uint64(len(t.index)) {
		for key, n := range t.index {
			if key.space == p.space {
				t.group(n).forget(p, count, gone)
			}
		}
		return
	}
	for first := p; first.page < p.page+count; first.page = (first.page/groupPages + 1) * groupPages {
		if g := t.lookup(first); g != nil {
			g.forget(p, count, gone)
		}
	}
}

// forget is that of the table, for the part of the run in g.
func (g *group) forget(p place, count uint64, gone func(place, uint32)) {
	for i := range groupPages {
		at := g.at(i)
		if at.page < p.page || at.page >= p.page+count {
			continue
		}
		g.hash[i] = xxh3.Uint128{}
		if g.slot[i] != 0 {
			gone(at, g.slot[i])
			g.slot[i] = 0
		}
	}
}

// bytes is the memory the table has taken.
func (t *table) bytes() int {
	n := len(t.hints.raw)
	for _, c := range t.chunks {
		n += len(c.raw)
	}
	return n
}

func (t *table) free() {
	t.hints.free()
	for i := range t.chunks {
		t.chunks[i].free()
	}
	*t = table{}
}
