package migrate

import (
	"runtime/debug"
	"runtime/metrics"
)

// Of a tree with manyFiles, the source's heap may grow by thrift percent before
// it is collected: what is known of the tree stays for the whole move, a hundred
// bytes a file, and the rest of the heap is small. Of another it may grow by ample
// percent: it is small anyway, and collecting takes a processor from the move.
const (
	manyFiles = 200_000
	thrift    = 15
	ample     = 300
)

// sourceHeap and destinationHeap are for a tree of so many files.
func sourceHeap(files uint64) {
	if files >= manyFiles {
		debug.SetGCPercent(thrift)
	} else {
		debug.SetGCPercent(ample)
	}
}

func destinationHeap(files uint64) {
	if files < manyFiles {
		debug.SetGCPercent(ample)
	}
}

// standstillHeap is how much the heap may grow, in bytes, before it is collected
// while a container stands still.
const standstillHeap = 64 << 20

// keepHeap puts off collecting the heap, which is as large as the container's
// tree has files: that would take a processor for just the time that counts. It
// returns what has it collected as before.
func keepHeap() (restore func()) {
	percent := debug.SetGCPercent(-1)
	limit := debug.SetMemoryLimit(-1)
	sample := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(sample)
	used := sample[0].Value.Uint64() - sample[1].Value.Uint64()
	debug.SetMemoryLimit(min(limit, int64(used)+standstillHeap)) //nolint:gosec // far from 2^63
	return func() {
		debug.SetMemoryLimit(limit)
		debug.SetGCPercent(percent)
	}
}
