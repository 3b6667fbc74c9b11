package memory

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/transport"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// writer does what memory does, at random, to a sender and to a model.
type writer struct {
	*moved
	t     testing.TB
	r     *rand.Rand
	model *mapStore
}

const testSpaces, testPages = 3, 700 // across granules

func (w *writer) give(p place, count uint32, data []byte) {
	w.t.Helper()
	if err := w.Pages(p.space, p.address(), count, data); err != nil {
		w.t.Fatal(err)
	}
	w.model.Put(p.space, p.address(), count, data)
}

func (w *writer) somewhere() place {
	space := uint64(w.r.IntN(testSpaces))
	if space == 2 {
		space |= 1 << 63
	}
	return place{space, 0x7ff12345 + uint64(w.r.IntN(testPages))}
}

func (w *writer) content(p place) []byte { return bytes.Clone(orZero(w.model.pages[p])) }

// step does one thing.
func (w *writer) step() {
	p, n := w.somewhere(), 1+w.r.IntN(40)
	switch w.r.IntN(8) {
	case 0: // a fork: neighbours, as in another space
		q := w.somewhere()
		var data []byte
		for i := range n {
			data = append(data, w.content(q.plus(uint64(i)))...)
		}
		w.give(place{p.space, q.page}, uint32(n), data)
	case 1:
		w.give(p, uint32(n), nil)
	case 2:
		w.give(p, uint32(n), make([]byte, n*pageSize))
	case 3:
		w.give(p, uint32(n), noise(w.r.Uint64(), n))
	case 4:
		w.give(p, uint32(n), text(w.r, n))
	case 5: // nothing changed
		w.give(p, 1, w.content(p))
	case 6: // many, far
		count := uint32(1 << 31)
		if len(w.routes) > 1 { // where it is cut
			count = 1 << 12
		}
		w.give(place{p.space, p.page + testPages}, count, nil)
	default:
		w.change(p)
	}
}

// change writes a little to some pages.
func (w *writer) change(p place) {
	for i := range uint64(w.r.IntN(8)) {
		data := w.content(p.plus(i))
		for range w.r.IntN(64) {
			data[w.r.IntN(pageSize)] = byte(w.r.Uint32())
		}
		w.give(p.plus(i), 1, data)
	}
}

func TestRandomMemory(t *testing.T) {
	for _, streams := range []int{1, 3} {
		for i, codec := range []string{"auto", "none", "lz4", "zstd"} {
			t.Run(fmt.Sprint(codec, streams), func(t *testing.T) {
				w := &writer{moved: move(t, streams, Options{codec, 2 << 20}), t: t,
					r: rand.New(rand.NewPCG(uint64(streams), uint64(i))), model: newStore()}
				for round := range uint64(4) {
					for range 120 {
						w.step()
					}
					if err := w.Mark(round + 1); err != nil {
						t.Fatal(err)
					}
					w.store.differs(t, w.model)
				}
				w.countsAgree()
			})
		}
	}
}

func (w *writer) countsAgree() {
	w.t.Helper()
	got, want := w.received(), w.Counts()
	if want.Raw == 0 || want.Zero == 0 || want.Reference == 0 || want.Delta == 0 || want.Same == 0 {
		w.t.Errorf("kinds missing: %+v", want)
	}
	for _, r := range w.routes {
		if r.receiver.Mark() != 4 {
			w.t.Errorf("mark %d arrived", r.receiver.Mark())
		}
	}
	var wire uint64
	for _, r := range w.routes {
		wire += r.Conn.Counts().SentBytes
	}
	if want.Wire != wire {
		w.t.Errorf("%d bytes counted, %d on the wire", want.Wire, wire)
	}
	want.Wire, want.Plain, want.Same = got.Wire, got.Plain, 0
	if got != want {
		w.t.Errorf("received %+v, sent %+v", got, want)
	}
}

// wireOf sends all data as space 1 from address 0 on, and then what more gives.
func wireOf(t testing.TB, o Options, data []byte, more ...func(*moved)) (wire uint64, m *moved) {
	t.Helper()
	m = move(t, 1, o)
	m.all(t, 1, data)
	if err := m.Flush(); err != nil {
		t.Fatal(err)
	}
	before := m.Counts().Wire
	for _, do := range more {
		do(m)
	}
	if err := m.Flush(); err != nil {
		t.Fatal(err)
	}
	if len(more) == 0 {
		before = 0
	}
	return m.Counts().Wire - before, m
}

// all gives data at the start of a space.
func (m *moved) all(t testing.TB, space uint64, data []byte) {
	t.Helper()
	for at := 0; at < len(data); at += MaxPages * pageSize {
		part := data[at:min(len(data), at+MaxPages*pageSize)]
		if err := m.Pages(space, uint64(at), uint32(len(part)/pageSize), part); err != nil {
			t.Fatal(err)
		}
	}
}

func ratioAtMost(t *testing.T, wire uint64, plain int, limit float64) {
	t.Helper()
	ratio := float64(wire) / float64(plain)
	t.Logf("%.5f bytes on the wire per byte", ratio)
	if ratio > limit {
		t.Errorf("%.4f bytes on the wire per byte, want at most %.4f", ratio, limit)
	}
}

func TestRandomCostsItself(t *testing.T) {
	data := noise(1, 4000)
	for _, codec := range []string{"none", "auto", "lz4", "zstd"} {
		wire, _ := wireOf(t, Options{Codec: codec}, data)
		ratioAtMost(t, wire, len(data), 1.001)
	}
}

func TestZerosCostNothing(t *testing.T) {
	data := make([]byte, 4000*pageSize)
	wire, _ := wireOf(t, Options{Codec: "none"}, data)
	ratioAtMost(t, wire, len(data), 0.00001)
	for at := 0; at < len(data); at += 2 * pageSize { // every other page
		data[at] = 1
	}
	wire, m := wireOf(t, Options{Codec: "none"}, data)
	if m.Counts().Zero != 2000 || m.Counts().Reference != 1999 {
		t.Errorf("%+v", m.Counts())
	}
	ratioAtMost(t, wire, len(data), 0.002)
}

func TestHalfZeroQuarterText(t *testing.T) {
	data := make([]byte, 8<<10*pageSize)
	copy(data, noise(2, 2<<10))
	copy(data[len(data)/2:], text(rand.New(rand.NewPCG(3, 3)), 2<<10))
	for codec, limit := range map[string]float64{"zstd": 0.35, "lz4": 0.39} {
		wire, _ := wireOf(t, Options{Codec: codec}, data)
		ratioAtMost(t, wire, len(data), limit)
	}
}

func TestForkedMemoryIsReferredTo(t *testing.T) {
	data := noise(4, 2000)
	for _, streams := range []int{1, 4} {
		m := move(t, streams, Options{Codec: "none"})
		m.all(t, 1, data)
		if err := m.Flush(); err != nil {
			t.Fatal(err)
		}
		before := m.Counts()
		for fork := range uint64(3) {
			m.all(t, 2+fork, data)
		}
		if err := m.Mark(1); err != nil {
			t.Fatal(err)
		}
		n := m.Counts()
		if n.Reference != 6000 || n.Raw != before.Raw {
			t.Errorf("%+v", n)
		}
		ratioAtMost(t, n.Wire-before.Wire, 3*len(data), 0.0002)
	}
}

func TestSmallChangesAreDeltas(t *testing.T) {
	data := noise(5, 1000)
	r := rand.New(rand.NewPCG(6, 6))
	change := func(m *moved) {
		for page := range 1000 {
			for range 64 {
				data[page*pageSize+r.IntN(pageSize)] ^= byte(1 + r.IntN(255))
			}
		}
		m.all(t, 1, data)
	}
	wire, m := wireOf(t, Options{"none", DefaultDeltaCache}, data, change)
	if m.Counts().Delta != 1000 {
		t.Errorf("%+v", m.Counts())
	}
	ratioAtMost(t, wire, len(data), 0.05)
	if _, m = wireOf(t, Options{"none", 0}, data, change); m.Counts().Delta != 0 {
		t.Errorf("without a cache: %+v", m.Counts())
	}
}

func TestDeltaCacheSmallerThanWorkingSet(t *testing.T) {
	data := noise(7, 1000)
	m := move(t, 1, Options{"none", 250 * pageSize})
	const rounds = 20
	for round := range rounds {
		for page := range 1000 {
			data[page*pageSize] = byte(round + 1)
		}
		m.all(t, 1, data)
	}
	if err := m.Flush(); err != nil {
		t.Fatal(err)
	}
	if n := m.Counts().Delta; n < 100*rounds {
		t.Errorf("%d deltas of %d pages", n, 1000*rounds)
	}
}

func TestNothingButMarks(t *testing.T) {
	m := move(t, 2, Options{})
	for n := range uint64(3) {
		if err := m.Mark(n + 1); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.Mark(3); fault.KindOf(err) != fault.BadValue {
		t.Errorf("mark again: %v", err)
	}
	if n := m.Counts(); n.Wire != 6*(transport.Overhead+markSize) {
		t.Errorf("%+v", n)
	}
}

func TestWhatIsNoRun(t *testing.T) {
	m := move(t, 1, Options{})
	for _, c := range []struct {
		address uint64
		count   uint32
		data    []byte
	}{
		{0, 0, nil},
		{1, 1, nil},
		{1<<64 - pageSize, 2, nil},
		{0, 2, make([]byte, pageSize)},
		{0, 1, make([]byte, 1)},
		{0, 1, []byte{}},
		{0, MaxPages + 1, make([]byte, (MaxPages+1)*pageSize)},
	} {
		if err := m.Pages(1, c.address, c.count, c.data); fault.KindOf(err) != fault.BadValue {
			t.Errorf("%d at %#x with %d bytes: %v", c.count, c.address, len(c.data), err)
		}
	}
	if err := errors.Join(m.Pages(1, 1<<64-pageSize, 1, noise(1, 1)), m.Flush()); err != nil {
		t.Error(err)
	}
}

func TestOptions(t *testing.T) {
	if _, err := NewSender([]FrameWriter{nil}, Options{Codec: "gzip"}); fault.KindOf(err) != fault.BadValue {
		t.Error(err)
	}
	for _, n := range []int{0, MaxStreams + 1} {
		if _, err := NewSender(make([]FrameWriter, n), Options{}); fault.KindOf(err) != fault.BadValue {
			t.Errorf("%d streams: %v", n, err)
		}
	}
}

// broken fails once it has taken some frames.
type broken struct{ frames int }

func (*broken) Busy() (uint64, time.Duration) { return 0, 0 }

func (b *broken) WriteEncoded(transport.Type, transport.Codec, int, ...[]byte) error {
	if b.frames--; b.frames < 0 {
		return io.ErrClosedPipe
	}
	return nil
}

func (b *broken) Flush() error { return nil }

func TestBrokenConnection(t *testing.T) {
	s, err := NewSender([]FrameWriter{&broken{100}, &broken{1}}, Options{Codec: "none"})
	if err != nil {
		t.Fatal(err)
	}
	data := noise(8, MaxPages)
	for n := range uint64(100) {
		if err = s.Pages(n, 0, MaxPages, data); err != nil {
			break
		}
		if err = s.Pages(n, granulePages*pageSize, MaxPages, noise(n, MaxPages)); err != nil {
			break
		}
	}
	if !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("pages: %v", err)
	}
	if err := s.Flush(); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("flush: %v", err)
	}
	s.Close()
	s.Close()
	for _, err := range []error{s.Pages(1, 0, 1, nil), s.Flush(), s.Mark(1)} {
		if err != errClosed {
			t.Errorf("after close: %v", err)
		}
	}
}
