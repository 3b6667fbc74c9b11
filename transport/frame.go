package transport

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/vzkit/vzkit/internal/fault"
)

// Version is the protocol version this package speaks.
const Version = 4

// MaxPayload is the most plain payload bytes one frame carries.
const MaxPayload = 1 << 20

const (
	maxEncoded = MaxPayload + 64<<10
	maxControl = 64 << 10
	headerSize = 12
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// header is the fixed start of a frame.
type header struct {
	kind     Type
	codec    Codec
	reserved uint16
	length   uint32 // of the encoded payload
	checksum uint32
}

// put writes h into b, with the checksum of h and the payload.
func (h header) put(b *[headerSize]byte, payload [][]byte) {
	b[0], b[1] = byte(h.kind), byte(h.codec)
	binary.BigEndian.PutUint16(b[2:], h.reserved)
	binary.BigEndian.PutUint32(b[4:], h.length)
	binary.BigEndian.PutUint32(b[8:], checksum(b, payload...))
}

// parseHeader is put's counterpart. It checks everything but the checksum,
// which takes the payload.
func parseHeader(b *[headerSize]byte) (header, error) {
	h := header{
		kind:     Type(b[0]),
		codec:    Codec(b[1]),
		reserved: binary.BigEndian.Uint16(b[2:]),
		length:   binary.BigEndian.Uint32(b[4:]),
		checksum: binary.BigEndian.Uint32(b[8:]),
	}
	return h, h.check()
}

func (h header) check() error {
	switch {
	case h.reserved != 0:
		return malformed(h.kind, "reserved bytes %#04x", h.reserved)
	case h.codec == CodecNone:
		return h.kind.checkPlain(uint64(h.length))
	case h.codec > CodecZstd:
		return malformed(h.kind, "codec %d not known", uint8(h.codec))
	case !h.kind.bulk():
		return malformed(h.kind, "packed with %s", h.codec)
	case h.length > maxEncoded:
		return malformed(h.kind, "%d packed bytes exceed %d", h.length, maxEncoded)
	}
	return nil
}

// checksum covers the header up to the checksum itself, then the payload.
func checksum(h *[headerSize]byte, payload ...[]byte) uint32 {
	sum := crc32.Update(0, castagnoli, h[:8])
	for _, p := range payload {
		sum = crc32.Update(sum, castagnoli, p)
	}
	return sum
}

func totalLen(parts [][]byte) int {
	n := 0
	for _, p := range parts {
		n += len(p)
	}
	return n
}

// malformed is a protocol error about a frame of type t.
func malformed(t Type, format string, args ...any) *fault.Error {
	return fault.New(fault.Protocol, "frame %s: %w", t, fmt.Errorf(format, args...))
}
