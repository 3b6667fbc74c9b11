package memory

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/bits"
	"strings"
	"testing"
	"time"

	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/transport"
)

// payload is a batch of parts.
func payload(runs, patches, raw []byte) []byte {
	b := batch{runs: append(make([]byte, batchHead), runs...), patches: patches, raw: raw}
	return bytes.Join(b.parts(), nil)
}

// numbers is a sequence of varints.
func numbers(n ...uint64) (b []byte) {
	for _, x := range n {
		b = binary.AppendUvarint(b, x)
	}
	return b
}

func head(k kind, count uint64, moved bool) uint64 {
	n := count<<3 | uint64(k)
	if moved {
		n |= 1 << 2
	}
	return n
}

// sent are the payloads of a sender that uses all kinds.
func sent(t testing.TB) [][]byte {
	t.Helper()
	var c capture
	s, err := NewSender([]FrameWriter{&c}, Options{"none", 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	data := noise(9, 2)
	changed := bytes.Clone(data[:pageSize])
	changed[7], changed[700] = changed[7]+1, changed[700]+1
	copy(changed[4000:], "some more bytes")
	err = errors.Join(
		s.Pages(1, 0x1000, 2, data), s.Pages(1<<63, 0, 300, nil), s.Pages(2, 0x1000, 2, data), s.Flush(),
		s.Pages(1, 0x1000, 1, changed), s.Pages(2, 0x2000, 1, nil), s.Mark(7))
	if n := s.Counts(); err != nil || n.Delta != 1 || n.Reference != 2 {
		t.Fatalf("%+v, %v", n, err)
	}
	return c.payloads
}

// capture is a FrameWriter that keeps payloads.
type capture struct{ payloads [][]byte }

func (*capture) Busy() (uint64, time.Duration) { return 0, 0 }

func (c *capture) WriteEncoded(_ transport.Type, _ transport.Codec, _ int, parts ...[]byte) error {
	c.payloads = append(c.payloads, bytes.Join(parts, nil))
	return nil
}

func (c *capture) Flush() error { return nil }

func TestCutAtEveryByte(t *testing.T) {
	frames := sent(t)
	for i, whole := range frames {
		for cut := range whole {
			r := NewReceiver(newStore())
			for _, before := range frames[:i] {
				if err := r.Frame(before); err != nil {
					t.Fatal(err)
				}
			}
			if err := r.Frame(whole[:cut]); fault.KindOf(err) != fault.Protocol {
				t.Fatalf("frame %d cut at %d of %d: %v", i, cut, len(whole), err)
			}
			if i == 0 && cut > 300 {
				break // of raw pages, each byte is like the next
			}
		}
	}
}

// TestFlippedBytes: the checksum of frames notices a flipped bit; without it
// there are wrong pages or an error of the peer, and what a mark tells is right.
func TestFlippedBytes(t *testing.T) {
	frames := sent(t)
	for i, frame := range frames {
		for at := range min(len(frame), 300) {
			for _, flip := range []byte{0x01, 0x08, 0x80, 0xff} {
				frame[at] ^= flip
				err := tryAll(newStore(), frames)
				if err != nil && fault.KindOf(err) != fault.Protocol {
					t.Fatalf("frame %d, byte %d ^ %#x: %v", i, at, flip, err)
				}
				if told := frame[0] == markFrame && at > 8; told && err == nil {
					t.Fatalf("mark, byte %d ^ %#x: no error", at, flip)
				}
				frame[at] ^= flip
			}
		}
	}
}

func tryAll(s Store, frames [][]byte) error {
	r := NewReceiver(s)
	for _, f := range frames {
		if err := r.Frame(f); err != nil {
			return err
		}
	}
	return nil
}

func deliver(t testing.TB, s Store, frames [][]byte) {
	t.Helper()
	if err := tryAll(s, frames); err != nil {
		t.Fatal(err)
	}
}

type hostilePayload struct {
	payload []byte
	want    string
}

func hostile() map[string]hostilePayload {
	far := zigzag(maxPage-1) << 1
	beyond := zigzag(maxPage) << 1
	page := make([]byte, pageSize)
	one := numbers(head(kindRaw, 1, false), head(kindDelta, 1, true), zigzag(-1)<<1)
	return map[string]hostilePayload{
		"nothing":            {nil, "neither batch nor mark, 0 bytes"},
		"unknown":            {[]byte{3, 0, 0, 0, 0, 0, 0, 0, 0}, "neither batch nor mark"},
		"long mark":          {append([]byte{markFrame}, make([]byte, markSize)...), "neither batch nor mark"},
		"runs too long":      {[]byte{1, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0}, "4294967295 bytes of runs and 0 of patches, 0 left"},
		"both too long":      {[]byte{1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, "4294967295 bytes of runs and 4294967295"},
		"no count":           {payload(numbers(head(kindZero, 0, false)), nil, nil), "run of 0 pages"},
		"large count":        {payload(numbers(head(kindZero, 1<<32, false)), nil, nil), "run of 4294967296 pages"},
		"endless varint":     {payload(bytes.Repeat([]byte{0xff}, 11), nil, nil), "varint cut or too long"},
		"no place":           {payload(numbers(head(kindZero, 1, true)), nil, nil), "varint cut or too long"},
		"no space":           {payload(numbers(head(kindZero, 1, true), 1), nil, nil), "varint cut or too long"},
		"before the start":   {payload(numbers(head(kindZero, 1, true), zigzag(-1)<<1), nil, nil), "page 0xffffffffffffffff out of range"},
		"behind the end":     {payload(numbers(head(kindZero, 1, true), beyond), nil, nil), "page 0x10000000000000 out of range"},
		"over the end":       {payload(numbers(head(kindZero, 2, true), far), nil, nil), "2 pages at page 0xfffffffffffff overflow"},
		"from over the end":  {payload(numbers(head(kindReference, 2, false), far), nil, nil), "2 pages at page 0xfffffffffffff overflow"},
		"no raw page":        {payload(numbers(head(kindRaw, 1, false)), nil, page[1:]), "1 raw pages in 4095 bytes"},
		"many raw pages":     {payload(numbers(head(kindRaw, 1<<32-1, false)), nil, page), "4294967295 pages, at most 8192"},
		"raw page too many":  {payload(numbers(head(kindRaw, 1, false)), nil, append(page, page...)), "4096 bytes behind the last run"},
		"patch too many":     {payload(numbers(head(kindZero, 1, false)), []byte{0}, nil), "1 bytes behind the last run"},
		"refers to none":     {payload(numbers(head(kindReference, 1, false), 1, bits.RotateLeft64(5, 1)), nil, nil), "page 0x0 of space 5 refers to none"},
		"refers to itself":   {payload(numbers(head(kindReference, 3, false), 0), nil, nil), "page 0x0 of space 0 refers to none"},
		"too many of them":   {payload(numbers(head(kindReference, 8193, false), 0), nil, nil), "8193 pages, at most 8192"},
		"patches none":       {payload(numbers(head(kindDelta, 1, false)), []byte{0}, nil), "page 0x0 of space 0 refers to none"},
		"no patch":           {payload(one, nil, page), "varint cut or too long"},
		"patch too short":    {payload(one, numbers(3, 0), page), "patch of 3 bytes, 1 left"},
		"patch over the end": {payload(one, []byte{4, 0xff, 0xff, 0x00, 1}, page), "patch of 5 bytes at offset 4095 of a page"},
		"patch without byte": {payload(one, numbers(1, 0), page), "patch of 1 bytes at offset 0 of a page"},
		"patch overflows":    {payload(one, numbers(20, 1<<64-1, 1<<64-1), page), "of a page"},
		"long patch step":    {payload(one, numbers(11, 3, 1<<64-1), page), "patch of 4100 bytes at offset 0"},
		"mark 0":             {append([]byte{markFrame}, make([]byte, 20)...), "mark 0 after 0"},
		"mark of more":       {mark(1, 1, 0), "mark 1: 0 pages arrived of 1"},
		"mark of others":     {mark(1, 0, 9), "mark 1: pages differ from those sent: checksum 00000000, want 00000009"},
	}
}

func mark(n, pages uint64, sum uint32) []byte {
	b := binary.BigEndian.AppendUint64([]byte{markFrame}, n)
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint64(b, pages), sum)
}

func TestHostilePayloads(t *testing.T) {
	for name, h := range hostile() {
		err := NewReceiver(newStore()).Frame(h.payload)
		if fault.KindOf(err) != fault.Protocol || !strings.Contains(err.Error(), h.want) {
			t.Errorf("%s: %v, want %q", name, err, h.want)
		}
	}
}

func TestReferencesActPageByPage(t *testing.T) {
	s := newStore()
	a := noise(10, 1)
	runs := numbers(head(kindRaw, 1, false), head(kindReference, 500, false), 0)
	deliver(t, s, [][]byte{payload(runs, nil, a)})
	for i := range uint64(501) {
		if !bytes.Equal(s.pages[place{0, i}], a) {
			t.Fatalf("page %d differs", i)
		}
	}
}

// liar loses a byte.
type liar struct{ *mapStore }

func (l liar) Get(space, address uint64, page []byte) (bool, error) {
	ok, err := l.mapStore.Get(space, address, page)
	page[100]++
	return ok, err
}

func TestMarkNoticesAStoreThatDiffers(t *testing.T) {
	err := tryAll(liar{newStore()}, sent(t))
	if fault.KindOf(err) != fault.Protocol || !strings.Contains(err.Error(), "mark 7: pages differ") {
		t.Error(err)
	}
}

var errFull = errors.New("store full")

// full takes nothing, or gives nothing.
type full struct{ put, get error }

func (f full) Put(uint64, uint64, uint32, []byte) error { return f.put }
func (f full) Get(uint64, uint64, []byte) (bool, error) { return true, f.get }

func TestStoreErrorsPass(t *testing.T) {
	for _, s := range []full{{put: errFull}, {get: errFull}} {
		if err := tryAll(s, sent(t)); !errors.Is(err, errFull) || fault.KindOf(err) == fault.Protocol {
			t.Error(err)
		}
	}
}

// FuzzFrame: whatever arrives, nothing panics, and pages stay in their space.
func FuzzFrame(f *testing.F) {
	for _, p := range sent(f) {
		f.Add(p)
	}
	for _, h := range hostile() {
		f.Add(h.payload)
	}
	first := sent(f)[0]
	f.Fuzz(func(t *testing.T, b []byte) {
		s := newStore()
		r := NewReceiver(s)
		if err := r.Frame(first); err != nil {
			t.Fatal(err)
		}
		err := r.Frame(b)
		if err != nil && fault.KindOf(err) != fault.Protocol {
			t.Fatal(err)
		}
		for p, data := range s.pages {
			if p.page >= maxPage || len(data) != pageSize {
				t.Fatalf("%d bytes at page %#x", len(data), p.page)
			}
		}
	})
}

// FuzzPatch: a patch makes the page it was made from.
func FuzzPatch(f *testing.F) {
	f.Add([]byte("abc"), []byte("abd"), uint16(0))
	f.Add([]byte{}, []byte("at the end"), uint16(pageSize-10))
	f.Add(noise(1, 1), noise(2, 1), uint16(0))
	f.Fuzz(func(t *testing.T, a, b []byte, at uint16) {
		base, page := make([]byte, pageSize), make([]byte, pageSize)
		copy(base, a)
		copy(page, a)
		copy(page[at%pageSize:], b)
		patch, ok := appendPatch(nil, base, page)
		if !ok {
			return
		}
		if len(patch) > maxPatch {
			t.Fatalf("patch of %d bytes", len(patch))
		}
		r := reader{append(numbers(uint64(len(patch))), patch...)}
		if err := r.patch(base); err != nil || !bytes.Equal(base, page) || len(r.b) > 0 {
			t.Fatalf("%v, %d bytes left", err, len(r.b))
		}
	})
}
