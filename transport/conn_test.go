package transport

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/vzkit/vzkit/internal/fault"
)

// frame is one frame as a reader sees it.
type frame struct {
	Type    Type
	Payload []byte
}

// sample has every frame type, and payloads that pack well, badly and not.
func sample() []frame {
	random := make([]byte, 700)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range random {
		random[i] = byte(r.Uint32())
	}
	var frames []frame
	for _, t := range slices.Sorted(maps.Keys(typeNames)) {
		if t != TypeError && t != TypePing { // the reader keeps these to itself
			frames = append(frames, frame{t, fmt.Appendf(nil, `{"frame":%q}`, t)})
		}
	}
	return append(frames,
		frame{TypeImage, []byte{}},
		frame{TypeFileData, bytes.Repeat([]byte("vzkit "), 200)},
		frame{TypePages, random},
		frame{TypeFinish, []byte{}})
}

// encode is the wire form of frames.
func encode(t testing.TB, codec Codec, frames []frame) []byte {
	t.Helper()
	var b bytes.Buffer
	c := &Conn{w: bufio.NewWriterSize(&b, 64)}
	c.SetCodec(codec)
	for _, f := range frames {
		if err := c.WriteFrame(f.Type, f.Payload); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// connOf reads b, with a buffer small enough to make thousands.
func connOf(b []byte) *Conn {
	return &Conn{r: bufio.NewReaderSize(bytes.NewReader(b), 64)}
}

// readAll reads frames up to the first error.
func readAll(c *Conn) ([]frame, error) {
	var frames []frame
	for {
		typ, payload, err := c.ReadFrame()
		if err != nil {
			return frames, err
		}
		frames = append(frames, frame{typ, append([]byte{}, payload...)})
	}
}

// same compares quickly; cmp.Diff takes minutes for what the tests below read.
func same(a, b []frame) bool {
	return slices.EqualFunc(a, b, func(x, y frame) bool {
		return x.Type == y.Type && bytes.Equal(x.Payload, y.Payload)
	})
}

// pair is two connected ends over real pipes.
func pair(t testing.TB) (a, b *Conn) {
	t.Helper()
	pipe := func() (*os.File, *os.File) {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { r.Close(); w.Close() })
		return r, w
	}
	ar, bw := pipe()
	br, aw := pipe()
	return NewConn(ar, aw), NewConn(br, bw)
}

var codecs = []Codec{CodecNone, CodecLZ4, CodecZstd}

func forEachCodec(t *testing.T, do func(t *testing.T, codec Codec)) {
	for _, codec := range codecs {
		t.Run(codec.String(), func(t *testing.T) { do(t, codec) })
	}
}

func TestRoundTrip(t *testing.T) {
	forEachCodec(t, func(t *testing.T, codec Codec) {
		want := sample()
		wire := encode(t, codec, want)
		got, err := readAll(NewConn(bytes.NewReader(wire), nil))
		if err != io.EOF {
			t.Errorf("end of stream: %v, want io.EOF itself", err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}
	})
}

func TestPartsAreJoined(t *testing.T) {
	forEachCodec(t, func(t *testing.T, codec Codec) {
		var b bytes.Buffer
		c := NewConn(&b, &b)
		c.SetCodec(codec)
		long := bytes.Repeat([]byte{7}, 2000)
		if err := errors.Join(c.WriteFrame(TypePages, []byte("a"), nil, long, []byte("z")), c.Flush()); err != nil {
			t.Fatal(err)
		}
		_, got, err := c.ReadFrame()
		if err != nil || string(got) != "a"+string(long)+"z" {
			t.Errorf("%d bytes, %v", len(got), err)
		}
	})
}

func TestControlFramesFlush(t *testing.T) {
	var b bytes.Buffer
	c := NewConn(nil, &b)
	for typ := range typeNames {
		b.Reset()
		if err := c.WriteFrame(typ, []byte("{}")); err != nil {
			t.Fatal(err)
		}
		if sent := b.Len() > 0; sent == typ.stream() {
			t.Errorf("%s: stream %v, sent at once %v", typ, typ.stream(), sent)
		}
		if err := c.Flush(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestStreamFramesFlushWhenFull(t *testing.T) {
	var b bytes.Buffer
	c := NewConn(nil, &b)
	chunk := make([]byte, writeBuffer/4)
	for range 5 {
		if err := c.WriteFrame(TypeFileData, chunk); err != nil {
			t.Fatal(err)
		}
	}
	if b.Len() == 0 {
		t.Error("a full buffer was not sent")
	}
}

func TestCounts(t *testing.T) {
	forEachCodec(t, func(t *testing.T, codec Codec) {
		var b bytes.Buffer
		c := NewConn(&b, &b)
		c.SetCodec(codec)
		payload := bytes.Repeat([]byte("x"), 10000)
		if err := errors.Join(c.WriteFrame(TypePages, payload), c.WriteFrame(TypeFinish)); err != nil {
			t.Fatal(err)
		}
		wire := uint64(b.Len())
		if _, err := readAll(c); err != io.EOF {
			t.Fatal(err)
		}
		plain := uint64(2*headerSize + len(payload))
		if got, want := c.Counts(), (Counts{wire, wire, plain, plain}); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
		if packed := wire < plain; packed != (codec != CodecNone) {
			t.Errorf("%d of %d bytes on the wire", wire, plain)
		}
	})
}

func TestConcurrentWriters(t *testing.T) {
	const writers, frames = 8, 60
	a, b := pair(t)
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for n := range frames {
				a.SetCodec(codecs[n%len(codecs)])
				if err := a.WriteFrame(TypeFileData, []byte{byte(w), byte(n)}, bytes.Repeat([]byte{byte(w)}, 50*n)); err != nil {
					t.Error(err)
				}
				a.Counts()
			}
		})
	}
	go func() { wg.Wait(); a.WriteJSON(TypeFilesEnd, nil) }()
	var next [writers]int
	for {
		typ, p, err := b.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		if typ == TypeFilesEnd {
			break
		}
		w, n := p[0], int(p[1])
		if n != next[w] || !bytes.Equal(p[2:], bytes.Repeat([]byte{w}, 50*n)) {
			t.Fatalf("writer %d: frame %d with %d bytes, want frame %d", w, n, len(p)-2, next[w])
		}
		next[w]++
	}
	for w, n := range next {
		if n != frames {
			t.Errorf("writer %d: %d frames of %d", w, n, frames)
		}
	}
}

func TestWriteLimits(t *testing.T) {
	c := NewConn(nil, io.Discard)
	for _, f := range []struct {
		typ  Type
		size int
		ok   bool
	}{
		{TypePages, MaxPayload, true},
		{TypePages, MaxPayload + 1, false},
		{TypeFileEntry, MaxPayload, true},
		{TypeOffer, maxControl, true},
		{TypeOffer, maxControl + 1, false},
		{Type(77), 0, false},
	} {
		err := c.WriteFrame(f.typ, make([]byte, f.size))
		if (err == nil) != f.ok || (err != nil && fault.KindOf(err) != fault.Protocol) {
			t.Errorf("%s with %d bytes: %v", f.typ, f.size, err)
		}
	}
}

func TestBrokenConnection(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	c := NewConn(r, w)
	r.Close()
	if err := c.WriteFrame(TypeCommit); fault.KindOf(err) != fault.Connect {
		t.Errorf("write: %v", err)
	}
	if err := c.Flush(); fault.KindOf(err) != fault.Connect {
		t.Errorf("flush: %v", err)
	}
	if _, _, err := c.ReadFrame(); fault.KindOf(err) != fault.Connect {
		t.Errorf("read: %v", err)
	}
	w.Close()
}

func TestReadErrorsStick(t *testing.T) {
	wire := encode(t, CodecNone, []frame{{TypeCommit, nil}, {TypeFinish, nil}})
	wire[2] = 1
	c := connOf(wire)
	_, _, first := c.ReadFrame()
	_, _, second := c.ReadFrame()
	if first == nil || first != second {
		t.Errorf("%v, then %v", first, second)
	}
}

func TestJSON(t *testing.T) {
	type offer struct {
		CTID int `json:"ctid"`
	}
	a, b := pair(t)
	if err := errors.Join(
		a.WriteJSON(TypeOffer, map[string]any{"ctid": 101, "newer": true}),
		a.WriteJSON(TypeAccept, nil),
		a.WriteJSON(TypeRestored, nil),
		a.WriteFrame(TypeOffer, []byte(`{"ctid":`)),
	); err != nil {
		t.Fatal(err)
	}
	var got offer
	if err := b.ReadJSON(TypeOffer, &got); err != nil || got.CTID != 101 {
		t.Errorf("%+v, %v", got, err)
	}
	if err := b.ReadJSON(TypeAccept, nil); err != nil {
		t.Error(err)
	}
	err := b.ReadJSON(TypeCommit, nil)
	if err == nil || err.Error() != "unexpected frame restored, want commit" || fault.KindOf(err) != fault.Protocol {
		t.Errorf("wrong type: %v", err)
	}
	if err := b.ReadJSON(TypeOffer, &got); fault.KindOf(err) != fault.Protocol {
		t.Errorf("cut JSON: %v", err)
	}
}

func TestJSONLimit(t *testing.T) {
	big := map[string]string{"a": string(make([]byte, maxControl))}
	if err := NewConn(nil, io.Discard).WriteJSON(TypeFileEntry, big); fault.KindOf(err) != fault.Protocol {
		t.Errorf("write: %v", err)
	}
	text := append(bytes.Repeat([]byte(" "), maxControl), "{}"...)
	c := connOf(encode(t, CodecNone, []frame{{TypeFileEntry, text}}))
	if err := c.ReadJSON(TypeFileEntry, new(struct{})); fault.KindOf(err) != fault.Protocol {
		t.Errorf("read: %v", err)
	}
	if err := NewConn(nil, io.Discard).WriteJSON(TypeOffer, make(chan int)); err == nil {
		t.Error("a channel became JSON")
	}
}

func TestReadJSONAtEnd(t *testing.T) {
	err := connOf(nil).ReadJSON(TypeResumed, nil)
	if !errors.Is(err, io.EOF) || fault.KindOf(err) != fault.Connect || err.Error() != "peer closed before resumed: EOF" {
		t.Errorf("%v, kind %d", err, fault.KindOf(err))
	}
}
