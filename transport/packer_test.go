package transport

import (
	"bytes"
	"io"
	"testing"

	"github.com/vzkit/vzkit/internal/fault"
)

func TestWriteEncoded(t *testing.T) {
	forEachCodec(t, func(t *testing.T, codec Codec) {
		text := bytes.Repeat([]byte("a page of tracked memory "), 4000)
		parts := [][]byte{text[:10], text[10:]}
		var wire bytes.Buffer
		c := NewConn(&wire, &wire)
		if codec != CodecNone {
			packed, err := new(Packer).Pack(TypeMemory, codec, parts...)
			if err != nil || len(packed) == 0 || len(packed) > len(text)/2 {
				t.Fatalf("%d bytes, %v", len(packed), err)
			}
			parts = [][]byte{packed}
		}
		if err := c.WriteEncoded(TypeMemory, codec, len(text), parts...); err != nil {
			t.Fatal(err)
		}
		if err := c.Flush(); err != nil {
			t.Fatal(err)
		}
		if n := totalLen(parts) + Overhead; wire.Len() != n || c.Counts().SentBytes != uint64(n) {
			t.Errorf("%d bytes on the wire, counted %d, want %d", wire.Len(), c.Counts().SentBytes, n)
		}
		typ, got, err := c.ReadFrame()
		if err != nil || typ != TypeMemory || !bytes.Equal(got, text) {
			t.Errorf("%s with %d bytes, %v", typ, len(got), err)
		}
	})
}

func TestPackWhatDoesNotShrink(t *testing.T) {
	noise := sample()[len(sample())-2].Payload
	for _, codec := range []Codec{CodecLZ4, CodecZstd} {
		if packed, err := new(Packer).Pack(TypeMemory, codec, noise); packed != nil || err != nil {
			t.Errorf("%s: %d bytes, %v", codec, len(packed), err)
		}
	}
}

func TestWriteEncodedLimits(t *testing.T) {
	for _, f := range []struct {
		typ           Type
		codec         Codec
		plain, length int
	}{
		{TypeMemory, CodecNone, MaxPayload + 1, MaxPayload + 1},
		{TypeMemory, CodecNone, 1, MaxPayload + 1},
		{TypeMemory, CodecZstd, MaxPayload, maxEncoded + 1},
		{TypeMemory, CodecZstd, MaxPayload + 1, 1},
		{TypeMemory, 3, 1, 1},
		{TypeOffer, CodecLZ4, 1, 1},
		{Type(77), CodecNone, 0, 0},
	} {
		err := NewConn(nil, io.Discard).WriteEncoded(f.typ, f.codec, f.plain, make([]byte, f.length))
		if fault.KindOf(err) != fault.Protocol {
			t.Errorf("%+v: %v", f, err)
		}
	}
}
