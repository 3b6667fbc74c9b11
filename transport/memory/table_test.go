package memory

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/zeebo/xxh3"

	"github.com/vzkit/vzkit/transport"
)

// sink is a connection that takes everything.
type sink struct{}

func (sink) Busy() (uint64, time.Duration) { return 0, 0 }

func (sink) WriteEncoded(transport.Type, transport.Codec, int, ...[]byte) error { return nil }
func (sink) Flush() error                                                       { return nil }

func hashOf(n uint64) xxh3.Uint128 {
	return xxh3.Uint128{Lo: n * 0x9e3779b97f4a7c15, Hi: n*0xc2b2ae3d27d4eb4f + 1}
}

// tell says that content n is at p.
func (t *table) tell(p place, n uint64) {
	g := t.ensure(p)
	g.hash[p.page%groupPages] = hashOf(n)
	t.remember(hashOf(n), t.recent, int(p.page%groupPages))
}

func TestTableIsBounded(t *testing.T) {
	table := newTable(1)
	defer table.free()
	const gib = 1 << 30 / pageSize
	for n := range uint64(8 * gib) {
		table.tell(place{n >> 20, n & (1<<20 - 1)}, n)
		if n == gib && table.bytes() > 24<<20 {
			t.Errorf("%d bytes for 1 GiB", table.bytes())
		}
	}
	if table.bytes() > 50<<20 || len(table.index) > maxGroups {
		t.Errorf("%d bytes, %d groups", table.bytes(), len(table.index))
	}
	found := 0
	for n := uint64(7 * gib); n < 8*gib; n++ {
		if p, ok := table.find(hashOf(n)); ok && p == (place{n >> 20, n & (1<<20 - 1)}) {
			found++
		}
	}
	if found < gib*95/100 {
		t.Errorf("%d of the last %d pages found", found, gib)
	}
}

func TestTableForgets(t *testing.T) {
	table := newTable(1)
	defer table.free()
	for n := range uint64(1000) {
		table.tell(place{1, n}, n)
	}
	table.forget(place{1, 100}, 50, nil)
	table.forget(place{1, 900}, 1<<31, nil)
	table.forget(place{2, 0}, 1<<31, nil)
	table.tell(place{1, 500}, 5000)
	for n := range uint64(1000) {
		gone := n >= 100 && n < 150 || n >= 900 || n == 500
		if p, ok := table.find(hashOf(n)); ok == gone || (ok && p != place{1, n}) {
			t.Errorf("content of page %d found %v at %v", n, ok, p)
		}
	}
}

// TestSparseMemory: pages far apart, in more groups than fit.
func TestSparseMemory(t *testing.T) {
	table := newTable(MaxStreams)
	defer table.free()
	for n := range uint64(4 * maxGroups / MaxStreams) {
		table.tell(place{1, n << 20}, n)
	}
	if len(table.index) > table.max || table.bytes() > 5<<20 {
		t.Errorf("%d groups, %d bytes", len(table.index), table.bytes())
	}
}

func TestCacheIsBounded(t *testing.T) {
	const slots = 50
	c := newCache(slots*pageSize + 1)
	defer c.free()
	r := rand.New(rand.NewPCG(1, 1))
	where := map[place]uint32{}
	for range 5000 {
		p := place{1, r.Uint64N(200)}
		data := noise(p.page, 1)
		switch got := c.get(where[p], p); {
		case got != nil && string(got) != string(data):
			t.Fatalf("content of page %d is another's", p.page)
		case got == nil:
			where[p] = c.put(p, data, true)
		case r.IntN(4) == 0:
			c.drop(p, where[p])
		}
	}
	held := 0
	for p, slot := range where {
		if c.get(slot, p) != nil {
			held++
		}
	}
	if held < slots/2 || held > slots {
		t.Errorf("%d pages in %d slots", held, slots)
	}
}

// TestSenderIsBounded: what a sender takes from the heap does not grow with
// what it sends.
func TestSenderIsBounded(t *testing.T) {
	s, err := NewSender([]FrameWriter{sink{}, sink{}}, Options{"none", 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	data := noise(1, MaxPages)
	give := func(from, to uint64) {
		for n := from; n < to; n++ {
			data[0], data[1] = byte(n), byte(n>>8)
			if err := s.Pages(n>>10, n&1023*MaxPages*pageSize, MaxPages, data); err != nil {
				t.Fatal(err)
			}
		}
	}
	give(0, 64)
	allocated := testing.AllocsPerRun(1, func() { give(64, 128) })
	if allocated > 1000 {
		t.Errorf("%v allocations for 32 MiB", allocated)
	}
}
