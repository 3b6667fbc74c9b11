package delta

import "math/bits"

const (
	alike   = 4  // blocks kept of those with the same weak sum
	probes  = 32 // places looked at for one weak sum
	spread  = 32 // bits of the filter for each block
	scatter = 0x9e3779b1
)

// index finds blocks by their weak sums. A bit in the filter says whether a
// look into the table, open addressing with linear probing, is worth while.
type index struct {
	sig    *Signature
	filter []uint64
	narrow uint8 // how far a weak sum is shifted to its bit
	table  []int32
	shift  uint8
}

func newIndex(s *Signature) *index {
	n := (s.blocks + s.stride - 1) / s.stride
	slots := bits.Len(uint(2 * n))
	width := max(6, bits.Len(uint(spread*n-1)))
	x := &index{
		sig:    s,
		filter: make([]uint64, 1<<(width-6)),
		narrow: uint8(32 - width),
		table:  make([]int32, 1<<slots),
		shift:  uint8(32 - slots),
	}
	for i := 0; i < s.blocks; i += s.stride {
		if s.windowed(i) {
			x.add(i)
		}
	}
	return x
}

// add leaves a block out that is like another, or one of too many alike.
func (x *index) add(i int) {
	w := x.sig.weak(i)
	same := 0
	for at, n := x.slot(w), 0; n < probes; at, n = x.next(at), n+1 {
		other := int(x.table[at]) - 1
		if other < 0 {
			x.table[at] = int32(i + 1)
			bit := w >> x.narrow
			x.filter[bit>>6] |= 1 << (bit & 63)
			return
		}
		if x.sig.weak(other) != w {
			continue
		}
		if same++; same == alike || x.equal(i, other) {
			return
		}
	}
}

func (x *index) equal(i, j int) bool {
	return x.sig.length(i) == x.sig.length(j) && x.sig.strong(i) == x.sig.strong(j)
}

func (x *index) slot(w uint32) uint32 { return w * scatter >> x.shift }

func (x *index) next(at uint32) uint32 { return (at + 1) & uint32(len(x.table)-1) }

// find appends the blocks with the weak sum w to found.
func (x *index) find(w uint32, found []int) []int {
	for at, n := x.slot(w), 0; n < probes && x.table[at] != 0; at, n = x.next(at), n+1 {
		if i := int(x.table[at]) - 1; x.sig.weak(i) == w {
			found = append(found, i)
		}
	}
	return found
}

// scan rolls sum, that of the window at from in b, on to the first position
// before to where the filter knows it, or to to. A window must fit at to.
func (x *index) scan(b []byte, sum uint64, from, to int) (uint64, int) {
	if from >= to {
		return sum, from
	}
	out := b[from:to]
	in := b[from+window:][:len(out)]
	filter, mask, narrow := x.filter, uint64(len(x.filter)-1), x.narrow&31
	for i, gone := range out {
		bit := uint64(weak(sum) >> narrow)
		if filter[bit>>6&mask]>>(bit&63)&1 != 0 {
			return sum, from + i
		}
		sum = sum*factor + (entering[in[i]] - leaving[gone])
	}
	return sum, to
}
