package pager

import (
	"maps"
	"math/bits"
)

// A need is a set of pages, by address, in tables of 16 MiB like the store's.
type need struct {
	tables map[uint64]*table
	count  uint64 // of pages
}

const (
	tablePages = 4096
	tableSize  = tablePages * pageSize
)

type table [tablePages / 64]uint64

func newNeed() need { return need{tables: map[uint64]*table{}} }

func (n *need) clone() need {
	c := need{tables: maps.Clone(n.tables), count: n.count}
	for index, t := range c.tables {
		copied := *t
		c.tables[index] = &copied
	}
	return c
}

func (n *need) has(address uint64) bool {
	t := n.tables[address/tableSize]
	page := address % tableSize / pageSize
	return t != nil && t[page/64]>>(page%64)&1 != 0
}

// set adds or takes away the pages in [start, end).
func (n *need) set(start, end uint64, needed bool) {
	for start < end {
		index := start / tableSize
		stop := min(end, (index+1)*tableSize)
		t := n.tables[index]
		if t == nil && needed {
			t = &table{}
			n.tables[index] = t
		}
		if t != nil {
			n.setPart(t, start%tableSize/pageSize, (stop-index*tableSize)/pageSize, needed)
		}
		start = stop
	}
}

func (n *need) setPart(t *table, from, to uint64, needed bool) {
	for from < to {
		stop := min(to, (from/64+1)*64)
		mask := ^uint64(0) >> (64 - (stop - from)) << (from % 64)
		word := &t[from/64]
		before := bits.OnesCount64(*word)
		if needed {
			*word |= mask
		} else {
			*word &^= mask
		}
		n.count += uint64(bits.OnesCount64(*word) - before)
		from = stop
	}
}

// next finds the first needed page in [start, end), and the end of its run.
func (n *need) next(start, end uint64) (from, to uint64, ok bool) {
	from = n.seek(start, end, true)
	if from >= end {
		return 0, 0, false
	}
	return from, n.seek(from, end, false), true
}

// seek returns the first page in [start, end) that is needed, or not needed.
func (n *need) seek(start, end uint64, needed bool) uint64 {
	for start < end {
		t := n.tables[start/tableSize]
		if t == nil {
			if !needed {
				return start
			}
			start = (start/tableSize + 1) * tableSize
			continue
		}
		page := start % tableSize / pageSize
		word := t[page/64]
		if !needed {
			word = ^word
		}
		word >>= page % 64
		if word != 0 {
			return min(end, start+uint64(bits.TrailingZeros64(word))*pageSize)
		}
		start += (64 - page%64) * pageSize
	}
	return end
}
