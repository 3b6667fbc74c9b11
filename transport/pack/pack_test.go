package pack

import (
	"bytes"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/vzkit/vzkit/transport"
)

func TestLooksRandom(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for i := range uint64(100) {
		if !looksRandom(noise(i, 64)) {
			t.Errorf("noise %d does not", i)
		}
	}
	for name, b := range map[string][]byte{
		"text": text(r, 64), "zeros": make([]byte, 1<<20), "short": noise(1, 1)[:1000],
		"half text": append(text(r, 64), noise(1, 64)...),
	} {
		if looksRandom(b) {
			t.Errorf("%s does", name)
		}
	}
}

// measured is a packer that knows its codecs: LZ4 halves at 500 MB/s, Zstandard
// makes a quarter at 200.
func measured(link float64) (*Packer, *class) {
	p, err := New("auto", linkOf(link))
	if err != nil {
		panic(err)
	}
	c := &p.classes[0]
	c.measured[transport.CodecLZ4] = measure{0.5, 1 / 500e6}
	c.measured[transport.CodecZstd] = measure{0.25, 1 / 200e6}
	return p, c
}

// linkOf is a link that takes so many bytes per second.
func linkOf(rate float64) *Link {
	l := new(Link)
	l.Saw(uint64(rate), time.Second)
	return l
}

func TestChoice(t *testing.T) {
	for _, c := range []struct {
		link float64
		want transport.Codec
	}{
		{2e6, transport.CodecZstd},
		{40e6, transport.CodecZstd},
		{200e6, transport.CodecLZ4},
		{2e9, transport.CodecNone},
	} {
		p, class := measured(c.link)
		if got := p.choose(class); got != c.want {
			t.Errorf("%.0f MB/s: %s, want %s", c.link/1e6, got, c.want)
		}
	}
}

func TestCodecAskedForIsLeftOutWhereItDoesNotPay(t *testing.T) {
	p, err := New("lz4", new(Link))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		data []byte
		want transport.Codec
	}{
		{noise(1, 200), transport.CodecNone},
		{text(rand.New(rand.NewPCG(1, 1)), 200), transport.CodecLZ4},
		{noise(2, 200), transport.CodecNone},
		{noise(2, 200)[:100], transport.CodecNone},
	} {
		if _, got, err := p.Pack(transport.TypeMemory, len(c.data), c.data); got != c.want || err != nil {
			t.Errorf("%d bytes: %s, %v", len(c.data), got, err)
		}
	}
}

// TestWhatLooksRandomIsSampled: bytes in equal numbers that pack well.
func TestWhatLooksRandomIsSampled(t *testing.T) {
	p, err := New("zstd", new(Link))
	if err != nil {
		t.Fatal(err)
	}
	var every [256]byte
	for i := range every {
		every[i] = byte(i)
	}
	data := bytes.Repeat(every[:], 3000)
	if _, got, _ := p.Pack(transport.TypeMemory, len(data), data); got != transport.CodecZstd || !looksRandom(data) {
		t.Error(got)
	}
}

func TestLinkIsNotFasterAtOnce(t *testing.T) {
	var l Link
	bytes, busy := uint64(1e6), time.Second
	l.Saw(bytes, busy)
	slow := l.perByte()
	bytes += 1e6
	l.Saw(bytes, busy)
	if got := l.perByte(); got < slow*0.9 || got >= slow {
		t.Errorf("%g s per byte after a write without wait, %g before", got, slow)
	}
	for range 200 {
		bytes, busy = bytes+1e6, busy+time.Millisecond
		l.Saw(bytes, busy)
	}
	if got := l.perByte(); got > slow/100 {
		t.Errorf("%g s per byte, long after the link got faster", got)
	}
}

// TestFewBytesTellNothing: they are counted with those that follow.
func TestFewBytesTellNothing(t *testing.T) {
	var l Link
	l.Saw(10, time.Second)
	if got := l.perByte(); got != 0 {
		t.Errorf("%g s per byte after 10 bytes", got)
	}
	l.Saw(1e6, time.Second)
	if got := l.perByte(); got != 1e-6 {
		t.Errorf("%g s per byte, want 1e-6", got)
	}
}

const page = 4096

func noise(seed uint64, pages int) []byte {
	var key [32]byte
	key[0], key[1], key[2] = byte(seed), byte(seed>>8), byte(seed>>16)
	b := make([]byte, pages*page)
	rand.NewChaCha8(key).Read(b)
	return b
}

func text(r *rand.Rand, pages int) []byte {
	words := []string{"container", "migrate", "memory", "the", "of", "page", "key:", "value", "\n", "0x", "user", "session"}
	b := make([]byte, 0, pages*page+16)
	for len(b) < pages*page {
		b = append(b, words[r.IntN(len(words))]...)
		b = append(b, ' ', byte('0'+r.IntN(10)), byte('0'+r.IntN(10)), ' ')
	}
	return b[:pages*page]
}
