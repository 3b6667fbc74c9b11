package delta

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"github.com/zeebo/xxh3"
)

// ErrMalformed is what Parse returns for anything that no Sign makes.
var ErrMalformed = errors.New("malformed signature")

// Signature describes a file by the sums of its blocks. The zero Signature is
// that of no file: nothing matches. It does not change; any number of
// goroutines may use it.
type Signature struct {
	layout
	raw   []byte // encoded
	salt  uint64
	index func() *index
}

// newSignature takes raw over.
func newSignature(l layout, raw []byte) *Signature {
	s := &Signature{layout: l, raw: raw, salt: binary.BigEndian.Uint64(raw[8:])}
	s.index = sync.OnceValue(func() *index { return newIndex(s) })
	return s
}

// Parse reads an encoded signature, which it keeps; the caller must not change
// it any more. Errors: ErrMalformed.
func Parse(b []byte) (*Signature, error) {
	if len(b) == 0 {
		return &Signature{}, nil
	}
	if len(b) < headSize {
		return nil, fmt.Errorf("%w of %d bytes", ErrMalformed, len(b))
	}
	size := int64(binary.BigEndian.Uint64(b))
	if size <= 0 || size > maxSigned {
		return nil, fmt.Errorf("%w of a file of %d bytes", ErrMalformed, size)
	}
	l := layoutOf(size)
	if len(b) != l.encoded() {
		return nil, fmt.Errorf("%w: %d bytes for a file of %d", ErrMalformed, len(b), size)
	}
	return newSignature(l, b), nil
}

// Encode returns the signature as it travels, which must not be changed: empty
// if it is that of no file.
func (s *Signature) Encode() []byte { return s.raw }

// Size is the length of what was signed.
func (s *Signature) Size() int64 { return s.size }

// Block is the length of a block, 0 of no file.
func (s *Signature) Block() int64 { return s.block }

// weak is the weak sum of block i, which has one.
func (s *Signature) weak(i int) uint32 { return binary.BigEndian.Uint32(s.raw[s.at(i):]) }

func (s *Signature) strong(i int) strong { return strong(s.raw[s.strongAt(i):]) }

// strong is a strong sum.
type strong [strongSize]byte

// strongOf is the strong sum of a block of this signature.
func (s *Signature) strongOf(b []byte) (sum strong) {
	var all [8]byte
	binary.BigEndian.PutUint64(all[:], xxh3.HashSeed(b, s.salt))
	copy(sum[:], all[:])
	return sum
}
