package delta

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"github.com/zeebo/blake3"
)

// ErrMalformed is what Parse returns for anything that no Sign makes.
var ErrMalformed = errors.New("malformed signature")

// Signature describes a file by the sums of its blocks. The zero Signature is
// that of no file: nothing matches. It does not change; any number of
// goroutines may use it.
type Signature struct {
	layout
	raw   []byte // encoded
	index func() *index
}

// newSignature takes raw over.
func newSignature(l layout, raw []byte) *Signature {
	s := &Signature{layout: l, raw: raw}
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

// hasher returns what makes strong sums of this signature, for one goroutine.
func (s *Signature) hasher() func(b []byte) strong {
	var key [2 * saltSize]byte
	copy(key[:], s.raw[8:headSize])
	copy(key[saltSize:], s.raw[8:headSize])
	h, err := blake3.NewKeyed(key[:])
	if err != nil {
		panic(err) // the key has the one length that is right
	}
	var out [32]byte
	return func(b []byte) strong {
		h.Reset()
		h.Write(b)
		return strong(h.Sum(out[:0]))
	}
}
