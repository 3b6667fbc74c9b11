package files

import (
	"math/rand/v2"
	"testing"
)

// TestInodes does the same to a table and to a map.
func TestInodes(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var table inodes
	want := map[uint64]*node{}
	check := func(step int) {
		t.Helper()
		if table.used != len(want) {
			t.Fatalf("step %d: %d entries, want %d", step, table.used, len(want))
		}
		for ino := range uint64(3000) {
			if got := table.find(ino); got != want[ino] {
				t.Fatalf("step %d: inode %d is %v, want %v", step, ino, got, want[ino])
			}
		}
	}
	for step := range 200_000 {
		ino := r.Uint64N(3000)
		if step%5 == 0 {
			ino *= ino // they need not be close to each other
			ino %= 3000
		}
		switch n := want[ino]; {
		case r.IntN(step/50_000+2) == 0:
			n = &node{ino: ino}
			table.put(n)
			want[ino] = n
		case n != nil:
			table.drop(n)
			delete(want, ino)
		default:
			table.drop(&node{ino: ino})
		}
		if step%20_000 == 0 {
			check(step)
		}
	}
	check(-1)
	other := &node{ino: 5}
	table.put(&node{ino: 5})
	table.drop(other)
	if table.find(5) == nil {
		t.Error("another node with that inode was dropped")
	}
}
