package transport

// Overhead is what a frame costs on the wire above its encoded payload, in
// bytes.
const Overhead = headerSize

// Packer packs payloads ahead of their frames, for WriteEncoded: who chooses
// the codec frame by frame, or packs while another frame is being written,
// needs both steps apart. One goroutine uses it at a time.
type Packer struct{ p packer }

// Pack returns the encoded payload of the parts, valid until the next Pack, or
// nil if they do not shrink. The codec is not CodecNone. Errors have kind
// fault.Protocol.
func (p *Packer) Pack(t Type, codec Codec, parts ...[]byte) ([]byte, error) {
	packed, err := p.p.pack(codec, parts)
	if err != nil {
		return nil, malformed(t, "pack %s: %w", codec, err)
	}
	return packed, nil
}

// WriteEncoded writes one frame whose encoded payload is the parts, one after
// the other: with CodecNone the payload itself, else what Pack gave for plain
// bytes. Otherwise it is WriteFrame; SetCodec does not matter.
func (c *Conn) WriteEncoded(t Type, codec Codec, plain int, parts ...[]byte) error {
	if err := t.checkPlain(uint64(plain)); err != nil {
		return err
	}
	h := header{kind: t, codec: codec, length: uint32(totalLen(parts))}
	if err := h.check(); err != nil {
		return err
	}
	return c.writeEncoded(t, codec, plain, parts)
}
