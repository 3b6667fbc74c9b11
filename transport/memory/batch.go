package memory

import (
	"encoding/binary"

	"github.com/vzkit/vzkit/transport"
	"github.com/vzkit/vzkit/transport/pack"
)

// batch is a frame in the making, and what is to happen after it.
type batch struct {
	runs    []byte // from the head of the payload on
	patches []byte
	raw     []byte
	content int // pages that are not zero

	codec  transport.Codec
	packed []byte // if there is a codec

	mark  []byte     // payload of a mark to write after the batch, if any
	flush chan error // where to tell that all is written, if anywhere
}

// reset makes b an empty batch, and keeps its memory.
func (b *batch) reset() {
	b.runs = append(b.runs[:0], make([]byte, batchHead)...)
	b.patches, b.raw, b.packed = b.patches[:0], b.raw[:0], b.packed[:0]
	b.content, b.codec = 0, transport.CodecNone
	b.mark, b.flush = nil, nil
}

func (b *batch) empty() bool { return len(b.runs) == batchHead }

func (b *batch) size() int { return len(b.runs) + len(b.patches) + len(b.raw) }

// parts is the payload.
func (b *batch) parts() [][]byte {
	b.runs[0] = batchFrame
	binary.BigEndian.PutUint32(b.runs[1:], uint32(len(b.runs)-batchHead))
	binary.BigEndian.PutUint32(b.runs[5:], uint32(len(b.patches)))
	return [][]byte{b.runs, b.patches, b.raw}
}

// pack chooses a codec and packs.
func (b *batch) pack(p *pack.Packer) error {
	if b.empty() {
		return nil
	}
	packed, codec, err := p.Pack(transport.TypeMemory, b.size(), b.parts()...)
	b.codec, b.packed = codec, append(b.packed, packed...)
	return err
}

// write writes the batch and what is to follow it.
func (b *batch) write(w FrameWriter, l *pack.Link) (wire int, err error) {
	if !b.empty() {
		parts := b.parts()
		if b.codec != transport.CodecNone {
			parts = [][]byte{b.packed}
		}
		for _, p := range parts {
			wire += len(p)
		}
		wire += transport.Overhead
		if err := w.WriteEncoded(transport.TypeMemory, b.codec, b.size(), parts...); err != nil {
			return 0, err
		}
		l.Saw(w.Busy())
	}
	if b.mark != nil {
		if err := w.WriteEncoded(transport.TypeMemory, transport.CodecNone, len(b.mark), b.mark); err != nil {
			return 0, err
		}
		wire += transport.Overhead + len(b.mark)
	}
	if b.flush != nil {
		return wire, w.Flush()
	}
	return wire, nil
}
