package delta

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/zeebo/xxh3"
)

const seed = 42

func random(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	seed := [32]byte{}
	binary.BigEndian.PutUint64(seed[:], r.Uint64())
	rand.NewChaCha8(seed).Read(b)
	return b
}

func signed(t testing.TB, b []byte) *Signature {
	t.Helper()
	s, err := Sign(t.Context(), bytes.NewReader(b), int64(len(b)), nil)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := Parse(s.Encode())
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

// applied rebuilds the new file from the old one and the runs, checks the
// runs, and returns how much was new data.
func applied(t testing.TB, s *Signature, old, want []byte, data Extents) (fresh int) {
	t.Helper()
	got := make([]byte, len(want))
	last := int64(0)
	err := s.Match(t.Context(), bytes.NewReader(want), int64(len(want)), Options{Seed: seed, Data: data}, func(r Run) error {
		if r.Offset < last || r.Length <= 0 || data == nil && r.Offset != last {
			return fmt.Errorf("run at %d of %d after %d", r.Offset, r.Length, last)
		}
		last = r.Offset + r.Length
		part := r.Data
		if r.From >= 0 {
			part = old[r.From : r.From+r.Length]
			if xxh3.HashSeed(part, seed) != r.Sum || r.Length > maxCopy || !bytes.Equal(r.Data, part) {
				return fmt.Errorf("copy %d of %d from %d is wrong", r.Offset, r.Length, r.From)
			}
		} else if fresh += len(part); len(part) > maxData {
			return fmt.Errorf("new data of %d bytes", len(part))
		}
		if int64(len(part)) != r.Length {
			return fmt.Errorf("run of %d with %d bytes", r.Length, len(part))
		}
		copy(got[r.Offset:], part)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if data == nil && last != int64(len(want)) {
		t.Fatalf("runs end at %d of %d", last, len(want))
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("file of %d bytes differs from %d", len(want), len(old))
	}
	return fresh
}

// edits change a file at random.
var edits = []func(r *rand.Rand, b []byte, at, n int) []byte{
	func(r *rand.Rand, b []byte, at, n int) []byte { // insert
		return append(append(bytes.Clone(b[:at]), random(r, n)...), b[at:]...)
	},
	func(r *rand.Rand, b []byte, at, n int) []byte { // delete
		return append(bytes.Clone(b[:at]), b[min(at+n, len(b)):]...)
	},
	func(r *rand.Rand, b []byte, at, n int) []byte { // overwrite
		c := bytes.Clone(b)
		copy(c[at:], random(r, n))
		return c
	},
	func(r *rand.Rand, b []byte, at, n int) []byte { // swap two parts
		c := bytes.Clone(b)
		to := r.IntN(len(b) + 1)
		n = min(n, len(b)-at, len(b)-to)
		copy(c[at:at+n], b[to:to+n])
		copy(c[to:to+n], b[at:at+n])
		return c
	},
	func(r *rand.Rand, b []byte, at, n int) []byte { return append(bytes.Clone(b), random(r, n)...) },
	func(r *rand.Rand, b []byte, at, n int) []byte { return bytes.Clone(b[:at]) },
	func(r *rand.Rand, b []byte, at, n int) []byte { return append(make([]byte, n), b...) },
	func(r *rand.Rand, b []byte, at, n int) []byte { // clear
		c := bytes.Clone(b)
		clear(c[at:min(at+n, len(c))])
		return c
	},
}

func TestRandomEdits(t *testing.T) {
	for round := range 150 {
		r := rand.New(rand.NewPCG(uint64(round), 1))
		old := random(r, r.IntN(1<<r.IntN(24)+1))
		file := old
		for range r.IntN(5) {
			edit := edits[r.IntN(len(edits))]
			file = edit(r, file, r.IntN(len(file)+1), r.IntN(1<<(4+r.IntN(15))))
		}
		s := signed(t, old)
		applied(t, s, old, file, nil)
		applied(t, s, old, file, punched(file, r))
	}
}

// punched clears parts of b, and tells where data is left.
func punched(b []byte, r *rand.Rand) Extents {
	var data []extent
	for at := 0; at < len(b); {
		hole := min(at+r.IntN(1<<r.IntN(20)+1), len(b))
		clear(b[at:hole])
		at = min(hole+1+r.IntN(1<<r.IntN(20)), len(b))
		if at > hole {
			data = append(data, extent{int64(hole), int64(at)})
		}
	}
	return func(at int64) (int64, int64, error) {
		for _, x := range data {
			if x.end > at {
				return max(x.start, at), x.end, nil
			}
		}
		return int64(len(b)), int64(len(b)), nil
	}
}

// TestFresh holds how much of a change goes as new data.
func TestFresh(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	old := random(r, 9<<20+1234)
	insert := func(at, n int) []byte { return edits[0](r, old, at, n) }
	overwritten := bytes.Clone(old)
	overwritten[5<<20+77] ^= 1
	overwritten[len(old)-1] ^= 1
	swapped := append(bytes.Clone(old[4<<20+500:]), old[:4<<20+500]...)
	for _, c := range []struct {
		name string
		file []byte
		most int
	}{
		{"same", old, 0},
		{"empty", nil, 0},
		{"overwritten", overwritten, minBlock + 1234},
		{"inserted at the start", insert(0, 1000), 1000},
		{"inserted at an odd place", insert(3<<20+1, 999), 999 + minBlock},
		{"inserted where two segments meet", insert(2<<20-1, 7), 7 + minBlock},
		{"appended", append(bytes.Clone(old), "tail"...), 4},
		{"truncated", old[:5<<20+1], 1},
		{"start gone", old[123457:], minBlock},
		{"halves swapped", swapped, 2 * minBlock},
		{"twice", append(bytes.Clone(old), old...), 0},
	} {
		if got := applied(t, signed(t, old), old, c.file, nil); got > c.most {
			t.Errorf("%s: %d bytes of new data, want at most %d", c.name, got, c.most)
		}
	}
}

// TestStride is about files of which not every block has a weak sum.
func TestStride(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 2))
	old := random(r, denseBlocks*minBlock+5*minBlock+300)
	s := signed(t, old)
	if s.stride != sparse {
		t.Fatalf("stride %d", s.stride)
	}
	file := append(random(r, 333), old...)
	file = edits[0](r, file, 20<<20, 4444)
	file = edits[1](r, file, 40<<20, 12345)
	if got, most := applied(t, s, old, file, nil), 333+4444+2*minBlock; got > most {
		t.Errorf("%d bytes of new data, want at most %d", got, most)
	}
}

func TestNoSignature(t *testing.T) {
	file := random(rand.New(rand.NewPCG(1, 1)), 3<<20)
	if got := applied(t, new(Signature), nil, file, nil); got != len(file) {
		t.Errorf("%d bytes of new data", got)
	}
	if s := signed(t, nil); len(s.Encode()) != 0 {
		t.Errorf("empty file has a signature of %d bytes", len(s.Encode()))
	}
}

// TestAlike counts strong sums where nearly all windows look alike.
func TestAlike(t *testing.T) {
	old := make([]byte, 4<<20)
	for i := minBlock - 1; i < len(old); i += minBlock {
		old[i] = byte(i>>12) | 1
		old[i-1] = byte(i >> 20)
	}
	file := append([]byte{1, 2, 3}, old...)
	for i := 1000; i < len(file); i += 1000 {
		file[i] = 7
	}
	s := signed(t, old)
	applied(t, s, old, file, nil)
	m := newMatcher(s, seed, int64(len(file)))
	hash, sums := m.hash, 0
	m.hash = func(b []byte) strong { sums++; return hash(b) }
	m.match(&segment{own: len(file), bytes: file, data: []extent{{0, int64(len(file))}}})
	if most := 2 * (patience + 3) * len(file) / minBlock; sums > most {
		t.Errorf("%d strong sums, want at most %d", sums, most)
	}
}

func TestSparseSign(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 9))
	b := make([]byte, 30<<20+99)
	copy(b[11<<20:], random(r, 5000))
	data := func(at int64) (int64, int64, error) {
		if at < 11<<20+5000 {
			return max(at, 11<<20), 11<<20 + 5000, nil
		}
		return int64(len(b)), int64(len(b)), nil
	}
	hit := &touched{ReaderAt: bytes.NewReader(b)}
	s, err := Sign(t.Context(), hit, int64(len(b)), data)
	if err != nil {
		t.Fatal(err)
	}
	if hit.bytes != segmentSize {
		t.Errorf("read %d bytes", hit.bytes)
	}
	if got := applied(t, s, b, b, nil); got != 0 {
		t.Errorf("%d bytes of new data", got)
	}
}

type touched struct {
	io.ReaderAt
	bytes int
}

func (r *touched) ReadAt(b []byte, at int64) (int, error) {
	r.bytes += len(b)
	return r.ReaderAt.ReadAt(b, at)
}

// TestShrunk: a file that ends early gives what there is.
func TestShrunk(t *testing.T) {
	b := random(rand.New(rand.NewPCG(5, 5)), 5<<20)
	got := int64(0)
	err := signed(t, b).Match(t.Context(), bytes.NewReader(b), 9<<20, Options{}, func(r Run) error {
		got = r.Offset + r.Length
		return nil
	})
	if !errors.Is(err, io.ErrUnexpectedEOF) || got != 5<<20 {
		t.Errorf("got %d bytes, %v", got, err)
	}
	if _, err := Sign(t.Context(), bytes.NewReader(b), 9<<20, nil); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Error(err)
	}
}

func TestErrors(t *testing.T) {
	b := random(rand.New(rand.NewPCG(6, 5)), 20<<20)
	s, broken := signed(t, b), errors.New("broken")
	fails := func(at int64) (int64, int64, error) {
		if at > 4<<20 {
			return 0, 0, broken
		}
		return at, at + 1<<20, nil
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(broken)
	none := func(Run) error { return nil }
	_, signErr := Sign(t.Context(), bytes.NewReader(b), int64(len(b)), fails)
	_, lateErr := Sign(ctx, bytes.NewReader(b), int64(len(b)), nil)
	for name, err := range map[string]error{
		"sign": signErr, "late sign": lateErr,
		"emit":  s.Match(t.Context(), bytes.NewReader(b), int64(len(b)), Options{}, func(Run) error { return broken }),
		"data":  s.Match(t.Context(), bytes.NewReader(b), int64(len(b)), Options{Data: fails}, none),
		"late":  s.Match(ctx, bytes.NewReader(b), int64(len(b)), Options{}, none),
		"fewer": s.Match(ctx, bytes.NewReader(b[:10]), 10, Options{}, none),
	} {
		if !errors.Is(err, broken) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestLayout(t *testing.T) {
	for size, block := range map[int64]int64{
		1: 4 << 10, 512 << 20: 4 << 10, 512<<20 + 1: 8 << 10, 4 << 30: 32 << 10, 32 << 30: 32 << 10,
		32<<30 + 1: 64 << 10, 1 << 40: 1 << 20, 1 << 60: 1 << 20,
	} {
		l := layoutOf(size)
		if l.block != block || l.blocks > maxBlocks || l.encoded() > MaxEncoded {
			t.Errorf("%d: %+v, encoded %d", size, l, l.encoded())
		}
	}
}

// FuzzParse: what is accepted is kept as it is, and can be matched with.
func FuzzParse(f *testing.F) {
	r := rand.New(rand.NewPCG(1, 1))
	file := random(r, 9000)
	for _, n := range []int{0, 1, 255, 256, 4096, 9000} {
		s, err := Sign(context.Background(), bytes.NewReader(file[:n]), int64(n), nil)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(s.Encode(), file)
	}
	f.Add(make([]byte, headSize-1), file)
	f.Add(append([]byte{0, 0, 1}, make([]byte, 30)...), file)
	f.Fuzz(func(t *testing.T, b, file []byte) {
		s, err := Parse(b)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Error(err)
			}
			return
		}
		if !bytes.Equal(s.Encode(), b) {
			t.Errorf("%x became %x", b, s.Encode())
		}
		end := int64(0)
		err = s.Match(t.Context(), bytes.NewReader(file), int64(len(file)), Options{}, func(r Run) error {
			if r.Offset != end || r.From >= 0 && r.From+r.Length > s.Size() {
				return fmt.Errorf("run %+v", r)
			}
			end += r.Length
			return nil
		})
		if err != nil || end != int64(len(file)) {
			t.Errorf("runs of %d bytes, %v", end, err)
		}
	})
}
