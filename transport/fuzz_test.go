package transport

import (
	"bytes"
	"testing"
)

// FuzzReadFrame: whatever arrives, a frame that is accepted keeps its limits
// and means the same when sent again.
func FuzzReadFrame(f *testing.F) {
	for _, codec := range codecs {
		f.Add(encode(f, codec, sample()))
		f.Add(encode(f, codec, []frame{{TypePages, make([]byte, 4*PageSize)}}))
	}
	for _, h := range hostile(f) {
		f.Add(h.wire)
	}
	f.Fuzz(func(t *testing.T, wire []byte) {
		checkStream(t, wire)
		checkStream(t, repaired(wire))
	})
}

func checkStream(t *testing.T, wire []byte) {
	frames, _ := readAll(connOf(wire))
	for _, got := range frames {
		if err := got.Type.checkPlain(uint64(len(got.Payload))); err != nil {
			t.Fatal(err)
		}
	}
	for _, codec := range codecs {
		again, _ := readAll(connOf(encode(t, codec, frames)))
		if !same(frames, again) {
			t.Fatalf("%s: %d frames became %d, or other ones", codec, len(frames), len(again))
		}
	}
}

// repaired sets right checksums, so that a mutation gets past them.
func repaired(wire []byte) []byte {
	wire = bytes.Clone(wire)
	for b := wire; len(b) >= headerSize; {
		head := (*[headerSize]byte)(b)
		b = b[headerSize:]
		h, err := parseHeader(head)
		if err != nil || int(h.length) > len(b) {
			break
		}
		h.put(head, [][]byte{b[:h.length]})
		b = b[h.length:]
	}
	return wire
}

// FuzzParsePages: what is accepted can be written and is the same then.
func FuzzParsePages(f *testing.F) {
	for _, p := range goodPages() {
		f.Add(payloadOf(f, func(c *Conn) error { return c.WritePages(p) }))
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := ParsePages(b)
		if err != nil {
			return
		}
		if end := p.Address + uint64(p.Count)*PageSize; end < p.Address {
			t.Fatalf("run ends at %#x", end)
		}
		if got := payloadOf(t, func(c *Conn) error { return c.WritePages(p) }); !bytes.Equal(got, b) {
			t.Fatal("written differently")
		}
	})
}

// FuzzParseImage: what is accepted can be written and is the same then.
func FuzzParseImage(f *testing.F) {
	f.Add([]byte("\x00\x08core.img"))
	f.Add([]byte("\x01\x0bcore-42.imgdata"))
	f.Add([]byte("\x01\x04../xdata"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := ParseImage(b)
		if err != nil || len(m.Data) > imageRun {
			return
		}
		if got := payloadOf(t, func(c *Conn) error { return c.WriteImage(m) }); !bytes.Equal(got, b) {
			t.Fatal("written differently")
		}
	})
}
