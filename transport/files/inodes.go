package files

import "math/bits"

// inodes finds entries by their inodes; of those with several names, one of
// these. It is a hash table of the nodes alone, with linear probing (D. Knuth,
// "The Art of Computer Programming" 6.4, algorithms L and R): half the memory of
// a map, which counts for a million files. The inode of a node that is in it
// must not change.
type inodes struct {
	slots []*node // a power of two of them
	used  int
}

const minSlots = 64

// home is where the search for an inode begins.
func (t *inodes) home(ino uint64) int {
	return int(ino * 0x9e3779b97f4a7c15 >> (64 - bits.TrailingZeros(uint(len(t.slots))))) //nolint:gosec // below len
}

// slot is where the inode is, or would come to be.
func (t *inodes) slot(ino uint64) int {
	i := t.home(ino)
	for t.slots[i] != nil && t.slots[i].ino != ino {
		i = t.next(i)
	}
	return i
}

func (t *inodes) next(i int) int { return (i + 1) & (len(t.slots) - 1) }

// find returns the entry with that inode, or nil.
func (t *inodes) find(ino uint64) *node {
	if t.used == 0 {
		return nil
	}
	return t.slots[t.slot(ino)]
}

// put adds an entry, in place of another with that inode.
func (t *inodes) put(n *node) {
	if t.used >= len(t.slots)/8*7 {
		t.grow()
	}
	i := t.slot(n.ino)
	if t.slots[i] == nil {
		t.used++
	}
	t.slots[i] = n
}

func (t *inodes) grow() {
	old := t.slots
	t.slots = make([]*node, max(minSlots, 2*len(old)))
	for _, n := range old {
		if n != nil {
			t.slots[t.slot(n.ino)] = n
		}
	}
}

// drop forgets an entry.
func (t *inodes) drop(n *node) {
	if t.find(n.ino) != n {
		return
	}
	i := t.slot(n.ino)
	t.slots[i] = nil
	t.used--
	for j := t.next(i); t.slots[j] != nil; j = t.next(j) { // what the gap must not cut off
		home := t.home(t.slots[j].ino)
		if (j-home)&(len(t.slots)-1) >= (j-i)&(len(t.slots)-1) {
			t.slots[i], t.slots[j] = t.slots[j], nil
			i = j
		}
	}
}
