package files

import "github.com/zeebo/xxh3"

// Content is summed by blocks of a power of two, at least minBlock: 64 bits of
// XXH3 with the seed of this migration, which nobody in the container knows.
const (
	minBlock = 16 << 10
	maxBlock = 256 << 10
	manySums = 1 << 16 // of one file, beyond which its blocks become larger
	allSums  = 4 << 20 // of all files, 32 MiB: likewise
)

// blockSums is the content of a file as the receiver has it.
type blockSums struct {
	block int64
	size  int64
	sums  []uint64 // 0: a hole
}

// blockFor is the size of the blocks of size bytes, of which there may be so
// many.
func blockFor(size, many int64) int64 {
	block := int64(minBlock)
	for block < maxBlock && size > block*many {
		block *= 2
	}
	return block
}

func newSums(size, block int64) *blockSums {
	return &blockSums{block: block, size: size, sums: make([]uint64, (size+block-1)/block)}
}

// sum is that of a block, never 0.
func sum(b []byte, seed uint64) uint64 { return sum64(b, seed) | 1 }

// sum64 is what the wire calls a sum.
func sum64(b []byte, seed uint64) uint64 { return xxh3.HashSeed(b, seed) }

// has tells whether block i, of size bytes here, has the sum s.
func (b *blockSums) has(i int64, size int64, s uint64) bool {
	return b != nil && i < int64(len(b.sums)) && b.sums[i] == s && min(b.block, b.size-i*b.block) == size
}
