package memory

// cache has the content that the receiver has at the places written most often,
// for patches. Numbers of slots begin at 1, so that 0 is none.
//
// While there is room every page is taken. Then only pages that come again, and
// of those one in admitOneIn: rounds go through memory in the order of
// addresses, so the oldest page of a working set that is larger than the cache
// is the one needed next, and taking all would hit nothing.
type cache struct {
	pages  []byte
	memory arena[byte]
	owner  []place
	hit    []bool // since the hand passed
	empty  []uint32
	filled int
	hand   int
	asked  int
}

const admitOneIn = 8

func newCache(size int) *cache {
	if size < pageSize {
		return new(cache)
	}
	c := &cache{memory: allocate[byte](size &^ (pageSize - 1))}
	c.pages = c.memory.all
	c.owner = make([]place, len(c.pages)/pageSize)
	c.hit = make([]bool, len(c.owner))
	return c
}

// get returns the content of p, which may be in the slot, or nil.
func (c *cache) get(slot uint32, p place) []byte {
	if slot == 0 || c.owner[slot-1] != p {
		return nil
	}
	c.hit[slot-1] = true
	return c.content(slot)
}

func (c *cache) content(slot uint32) []byte {
	return c.pages[(slot-1)*pageSize:][:pageSize]
}

// put takes the content of p, which get did not find, and returns its slot, or
// 0. Again says that p was sent before.
func (c *cache) put(p place, content []byte, again bool) uint32 {
	slot := c.room(again)
	if slot != 0 {
		c.owner[slot-1], c.hit[slot-1] = p, false
		copy(c.content(slot), content)
	}
	return slot
}

// room is a slot to fill, or 0.
func (c *cache) room(again bool) uint32 {
	if n := len(c.empty); n > 0 {
		slot := c.empty[n-1]
		c.empty = c.empty[:n-1]
		return slot
	}
	if c.filled < len(c.owner) {
		c.filled++
		return uint32(c.filled)
	}
	if !again || len(c.owner) == 0 {
		return 0
	}
	if c.asked++; c.asked%admitOneIn != 0 {
		return 0
	}
	return c.victim()
}

// victim is the next slot that was not hit since the hand passed it.
func (c *cache) victim() uint32 {
	for {
		c.hand = (c.hand + 1) % len(c.owner)
		if !c.hit[c.hand] {
			return uint32(c.hand + 1)
		}
		c.hit[c.hand] = false
	}
}

// drop empties the slot if it has p.
func (c *cache) drop(p place, slot uint32) {
	if c.owner[slot-1] == p {
		c.owner[slot-1] = place{page: maxPage} // no page's place
		c.empty = append(c.empty, slot)
	}
}

func (c *cache) free() { c.memory.free() }
