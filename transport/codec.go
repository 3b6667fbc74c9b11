package transport

import (
	"encoding/binary"
	"fmt"
	"sync"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"

	"github.com/vzkit/vzkit/internal/fault"
)

// Codec says how the payload of a frame is packed. The numbers go over the
// wire; append only.
type Codec uint8

// The codecs: LZ4 block format, and Zstandard frames at the fastest level.
const (
	CodecNone Codec = 0
	CodecLZ4  Codec = 1
	CodecZstd Codec = 2
)

// minPack is the payload size from which packing is tried.
const minPack = 256

// plainLenSize is the size of the plain length before packed bytes.
const plainLenSize = 4

// ParseCodec understands "none", "lz4" and "zstd".
func ParseCodec(name string) (Codec, error) {
	for c := CodecNone; c <= CodecZstd; c++ {
		if c.String() == name {
			return c, nil
		}
	}
	return CodecNone, fault.New(fault.BadValue, "codec %q not known", name).
		WithHint("Use one of none, lz4 and zstd.")
}

// String is the name ParseCodec takes.
func (c Codec) String() string {
	switch c {
	case CodecNone:
		return "none"
	case CodecLZ4:
		return "lz4"
	case CodecZstd:
		return "zstd"
	}
	return fmt.Sprintf("codec %d", uint8(c))
}

// packer packs payloads; one goroutine uses it at a time.
type packer struct {
	lz4   lz4.Compressor
	zstd  *zstd.Encoder
	plain []byte
	out   []byte
}

// packers are shared by all connections, so that concurrent writers pack in
// parallel and idle connections hold no memory.
var packers = sync.Pool{New: func() any { return new(packer) }}

// pack returns the encoded payload (plain length, packed bytes) of the parts,
// valid until the next pack, or nil if packing does not make them smaller.
func (p *packer) pack(codec Codec, parts [][]byte) ([]byte, error) {
	plain := p.join(parts)
	var err error
	if codec == CodecLZ4 {
		err = p.packLZ4(plain)
	} else {
		err = p.packZstd(plain)
	}
	if err != nil || len(p.out) >= len(plain) {
		return nil, err
	}
	binary.BigEndian.PutUint32(p.out, uint32(len(plain)))
	return p.out, nil
}

func (p *packer) join(parts [][]byte) []byte {
	if len(parts) == 1 {
		return parts[0]
	}
	p.plain = p.plain[:0]
	for _, part := range parts {
		p.plain = append(p.plain, part...)
	}
	return p.plain
}

func (p *packer) packLZ4(plain []byte) error {
	p.out = grow(p.out, plainLenSize+lz4.CompressBlockBound(len(plain)))
	n, err := p.lz4.CompressBlock(plain, p.out[plainLenSize:])
	p.out = p.out[:plainLenSize+n]
	return err
}

func (p *packer) packZstd(plain []byte) error {
	if p.zstd == nil {
		var err error
		p.zstd, err = zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest),
			zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(MaxPayload), zstd.WithEncoderCRC(false))
		if err != nil {
			return err
		}
	}
	p.out = p.zstd.EncodeAll(plain, grow(p.out, plainLenSize))
	return nil
}

// unpacker is packer's counterpart, with memory that a peer cannot inflate.
type unpacker struct {
	zstd *zstd.Decoder
	out  []byte
}

// unpack returns the plain payload, valid until the next unpack. The type only
// serves the error text.
func (u *unpacker) unpack(t Type, codec Codec, b []byte) ([]byte, error) {
	if len(b) < plainLenSize {
		return nil, malformed(t, "plain length missing")
	}
	size := binary.BigEndian.Uint32(b)
	if size == 0 || size > MaxPayload {
		return nil, malformed(t, "plain length %d, limit %d", size, MaxPayload)
	}
	u.out = grow(u.out, int(size))
	plain, err := u.into(u.out, codec, b[plainLenSize:])
	if err != nil {
		return nil, malformed(t, "unpack %s: %w", codec, err)
	}
	if len(plain) != int(size) {
		return nil, malformed(t, "unpacked %d bytes, announced %d", len(plain), size)
	}
	return plain, nil
}

// into unpacks to dst, never beyond its length.
func (u *unpacker) into(dst []byte, codec Codec, packed []byte) ([]byte, error) {
	if codec == CodecLZ4 {
		n, err := lz4.UncompressBlock(packed, dst)
		return dst[:max(n, 0)], err
	}
	if u.zstd == nil {
		var err error
		u.zstd, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecodeAllCapLimit(true),
			zstd.WithDecoderMaxMemory(MaxPayload), zstd.WithDecoderMaxWindow(MaxPayload))
		if err != nil {
			return nil, err
		}
	}
	return u.zstd.DecodeAll(packed, dst[:0:len(dst)])
}

// grow returns b with length n. The content is undefined.
func grow(b []byte, n int) []byte {
	if cap(b) < n {
		return make([]byte, n)
	}
	return b[:n]
}
