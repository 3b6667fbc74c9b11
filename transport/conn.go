package transport

import (
	"bufio"
	"errors"
	"io"
	"sync"
	"sync/atomic"

	"github.com/vzkit/vzkit/internal/fault"
)

// Sizes of buffers, in bytes. What is written at once is a packet of SSH, and
// larger payloads go past the buffer.
const (
	readBuffer  = 256 << 10
	writeBuffer = 32 << 10
)

// Conn frames one connection. Any number of goroutines may write; one at a
// time may read. Conn does not close what it stands on, and closing that is
// the way to end a call that blocks.
type Conn struct {
	codec  atomic.Uint32
	counts counters
	flow   flow
	busy   Busier

	writing sync.Mutex
	w       *bufio.Writer // guarded by writing

	r        *bufio.Reader
	in       []byte // the last encoded payload
	unpacker unpacker
	broken   error // the error that ended reading
}

// NewConn returns a Conn that packs nothing.
func NewConn(r io.Reader, w io.Writer) *Conn {
	busy, ok := w.(Busier)
	if !ok {
		t := &timed{Writer: w}
		w, busy = t, t
	}
	c := &Conn{
		busy: busy,
		r:    bufio.NewReaderSize(r, readBuffer),
		w:    bufio.NewWriterSize(w, writeBuffer),
	}
	c.flow.changed.L = &c.flow.mu
	return c
}

// SetCodec packs what WriteFrame writes of bulk frames (pages, image, file-data,
// memory) from now on.
func (c *Conn) SetCodec(codec Codec) { c.codec.Store(uint32(codec)) }

// WriteFrame writes one frame whose payload is the parts, one after the other;
// it keeps none of them. A stream frame may stay in the buffer until that is
// full, a control frame follows or Flush is called. Errors: fault.Protocol if
// the payload is over the limit of t, fault.Connect if the write fails.
func (c *Conn) WriteFrame(t Type, parts ...[]byte) error {
	plain := totalLen(parts)
	if err := t.checkPlain(uint64(plain)); err != nil {
		return err
	}
	codec := Codec(c.codec.Load())
	if codec == CodecNone || !t.bulk() || plain < minPack {
		return c.writeEncoded(t, CodecNone, plain, parts)
	}
	p := packers.Get().(*packer)
	defer packers.Put(p)
	packed, err := p.pack(codec, parts)
	if err != nil {
		return malformed(t, "pack %s: %w", codec, err)
	}
	if packed == nil {
		return c.writeEncoded(t, CodecNone, plain, parts)
	}
	return c.writeEncoded(t, codec, plain, [][]byte{packed})
}

// writeEncoded writes a frame with an encoded payload.
func (c *Conn) writeEncoded(t Type, codec Codec, plain int, payload [][]byte) error {
	length := totalLen(payload)
	var head [headerSize]byte
	header{kind: t, codec: codec, length: uint32(length)}.put(&head, payload)
	if err := c.send(t, head[:], payload); err != nil {
		return fault.New(fault.Connect, "write frame %s: %w", t, err)
	}
	c.counts.sent(length, plain)
	return nil
}

func (c *Conn) send(t Type, head []byte, payload [][]byte) error {
	if t.stream() {
		if err := c.hold(); err != nil {
			return err
		}
	}
	c.writing.Lock()
	defer c.writing.Unlock()
	if _, err := c.w.Write(head); err != nil {
		return err
	}
	for _, p := range payload {
		if _, err := c.w.Write(p); err != nil {
			return err
		}
	}
	if t.stream() {
		return nil
	}
	return c.w.Flush()
}

// Flush sends what waits in the write buffer.
func (c *Conn) Flush() error {
	c.writing.Lock()
	defer c.writing.Unlock()
	if err := c.w.Flush(); err != nil {
		return fault.New(fault.Connect, "write frames: %w", err)
	}
	return nil
}

// ReadFrame returns the next frame that is no ping; the payload is valid until the next
// ReadFrame. Errors: io.EOF itself if the connection ended between frames,
// *PeerError if the peer sent an error frame, fault.Protocol if a frame is
// corrupt, truncated or oversized, fault.Connect if the read fails. Each ends
// the connection: every later ReadFrame returns it again.
func (c *Conn) ReadFrame() (Type, []byte, error) {
	if c.broken != nil {
		return 0, nil, c.broken
	}
	t, payload, err := c.readFrame()
	for err == nil && t == TypePing {
		if err = c.flow.heard(payload); err == nil {
			t, payload, err = c.readFrame()
		}
	}
	if err == nil && t == TypeError {
		err = parsePeerError(payload)
	}
	if err != nil {
		c.broken = err
		c.flow.end()
		return 0, nil, err
	}
	return t, payload, nil
}

func (c *Conn) readFrame() (Type, []byte, error) {
	var head [headerSize]byte
	if _, err := io.ReadFull(c.r, head[:]); err != nil {
		return 0, nil, readError("frame header", err)
	}
	h, err := parseHeader(&head)
	if err != nil {
		return 0, nil, err
	}
	payload, err := c.readPayload(&head, h)
	if err != nil {
		return 0, nil, err
	}
	c.counts.received(int(h.length), len(payload))
	c.take()
	return h.kind, payload, nil
}

func (c *Conn) readPayload(head *[headerSize]byte, h header) ([]byte, error) {
	c.in = grow(c.in, int(h.length))
	if _, err := io.ReadFull(c.r, c.in); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return nil, readError("frame "+h.kind.String(), err)
	}
	if checksum(head, c.in) != h.checksum {
		return nil, malformed(h.kind, "checksum mismatch")
	}
	if h.codec == CodecNone {
		return c.in, nil
	}
	return c.unpacker.unpack(h.kind, h.codec, c.in)
}

// readError classifies an error of io.ReadFull.
func readError(what string, err error) error {
	switch {
	case err == io.EOF:
		return io.EOF
	case errors.Is(err, io.ErrUnexpectedEOF):
		return fault.New(fault.Protocol, "truncated %s: %w", what, io.ErrUnexpectedEOF)
	case fault.KindOf(err) != fault.Other: // whoever reads for us knows better
		return err
	}
	return fault.New(fault.Connect, "read %s: %w", what, err)
}

// Counts are the bytes of whole frames so far. Sent and received bytes are
// those on the wire (before SSH adds its own), those in the write buffer
// included; plain is what they would have been without packing.
type Counts struct {
	SentBytes, ReceivedBytes, SentPlain, ReceivedPlain uint64
}

// Counts may be called at any time, from any goroutine.
func (c *Conn) Counts() Counts {
	return Counts{
		SentBytes:     c.counts.out.Load(),
		SentPlain:     c.counts.outPlain.Load(),
		ReceivedBytes: c.counts.in.Load(),
		ReceivedPlain: c.counts.inPlain.Load(),
	}
}

type counters struct{ out, outPlain, in, inPlain atomic.Uint64 }

func (n *counters) sent(encoded, plain int) {
	n.out.Add(uint64(headerSize + encoded))
	n.outPlain.Add(uint64(headerSize + plain))
}

func (n *counters) received(encoded, plain int) {
	n.in.Add(uint64(headerSize + encoded))
	n.inPlain.Add(uint64(headerSize + plain))
}
