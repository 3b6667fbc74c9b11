package delta

import "math/bits"

const (
	minBlock   = 4 << 10
	midBlock   = 32 << 10
	maxBlock   = 1 << 20
	manyBlocks = 1 << 17 // up to midBlock
	maxBlocks  = 1 << 20
	maxSigned  = maxBlock * maxBlocks

	denseBlocks = 1 << 14 // up to so many, each has a weak sum
	sparse      = 4       // beyond, every fourth

	headSize   = 8 + saltSize
	saltSize   = 8
	weakSize   = 4
	strongSize = 5
)

// MaxEncoded bounds the bytes of an encoded signature.
const MaxEncoded = headSize + maxBlocks*strongSize + maxBlocks/sparse*weakSize

// layout is where things are, in a file and in its signature.
type layout struct {
	size   int64 // what is signed of the file
	block  int64
	blocks int
	stride int // a weak sum for every stride blocks
}

func layoutOf(size int64) layout {
	size = min(size, maxSigned)
	l := layout{size: size, block: minBlock, stride: 1}
	l.block = max(minBlock, min(midBlock, split(size, manyBlocks)), split(size, maxBlocks))
	l.blocks = int((size + l.block - 1) / l.block)
	if l.blocks > denseBlocks {
		l.stride = sparse
	}
	return l
}

// split is the smallest power of two of which n cover size.
func split(size, n int64) int64 {
	each := (size + n - 1) / n
	return 1 << bits.Len64(uint64(max(each, 1)-1))
}

// encoded is the length of the signature.
func (l *layout) encoded() int {
	if l.blocks == 0 {
		return 0
	}
	return l.at(l.blocks)
}

// at is where block i begins in the signature, with its weak sum if it has one.
func (l *layout) at(i int) int {
	return headSize + i*strongSize + (i+l.stride-1)/l.stride*weakSize
}

// strongAt is where the strong sum of block i is in the signature.
func (l *layout) strongAt(i int) int {
	return headSize + i*strongSize + (i/l.stride+1)*weakSize
}

// length is that of block i.
func (l *layout) length(i int) int {
	return int(min(l.block, l.size-int64(i)*l.block))
}

// windowed reports whether block i has a weak sum that counts.
func (l *layout) windowed(i int) bool {
	return i%l.stride == 0 && l.length(i) >= window
}
