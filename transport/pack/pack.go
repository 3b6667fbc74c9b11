// Package pack chooses codecs: for each payload the one with which it is through
// soonest, by what packing takes and yields and by how fast the link is, all of
// it measured as it goes.
package pack

import (
	"time"

	"github.com/vzkit/vzkit/transport"
)

const (
	minPack     = 256      // bytes worth packing
	sampleSize  = 64 << 10 // bytes tried with every codec
	sampleEvery = 128      // batches between samples
	maxRatio    = 0.97     // above it packing does not pay
	learning    = 0.25     // weight of the newest measure
	cpuWeight   = 1.0 / 8  // of packing while the link is the bottleneck
	fastLink    = 1 / 1e9  // seconds per byte; no codec is as fast
	noisePieces = 16       // that looksRandom takes
	noisePiece  = 256      // bytes each
)

// Packer chooses a codec for each payload and packs. Payloads that look random
// and others are two classes, measured apart.
type Packer struct {
	auto    bool
	codecs  []transport.Codec // to choose from, beside none
	link    *Link
	pack1   transport.Packer
	classes [2]class
}

// class is what is known of the codecs with one sort of batches.
type class struct {
	measured [transport.CodecZstd + 1]measure
	batches  int
}

// measure is of one codec.
type measure struct {
	ratio   float64 // packed bytes per plain byte, 0 before the first measure
	perByte float64 // seconds per plain byte
}

func (m *measure) learn(plain, packed int, d time.Duration) {
	ratio, perByte := float64(packed)/float64(plain), d.Seconds()/float64(plain)
	if m.ratio == 0 {
		*m = measure{ratio, perByte}
		return
	}
	m.ratio += learning * (ratio - m.ratio)
	m.perByte += learning * (perByte - m.perByte)
}

// cost is the time per plain byte when packing runs beside the writing of the
// batch before, and a bit for the processor, which others want, too.
func (m measure) cost(link float64) float64 {
	return max(m.perByte, m.ratio*link) + m.perByte*cpuWeight
}

// New takes what transport.ParseCodec understands, and "auto" or "".
func New(name string, l *Link) (*Packer, error) {
	if name == "" || name == "auto" {
		return &Packer{auto: true, codecs: []transport.Codec{transport.CodecLZ4, transport.CodecZstd}, link: l}, nil
	}
	codec, err := transport.ParseCodec(name)
	if err != nil {
		return nil, err
	}
	p := &Packer{link: l}
	if codec != transport.CodecNone {
		p.codecs = []transport.Codec{codec}
	}
	return p, nil
}

// Pack returns the packed payload, size bytes in parts, and its codec, or nil
// and CodecNone. The bytes are valid until the next Pack.
func (p *Packer) Pack(t transport.Type, size int, parts ...[]byte) ([]byte, transport.Codec, error) {
	if len(p.codecs) == 0 || size < minPack || p.auto && p.link.perByte() < fastLink {
		return nil, transport.CodecNone, nil
	}
	c := &p.classes[0]
	raw := parts[len(parts)-1]
	if looksRandom(raw) {
		c = &p.classes[1]
	}
	if c.batches%sampleEvery == 0 {
		if err := p.sample(t, c, parts); err != nil {
			return nil, transport.CodecNone, err
		}
	}
	c.batches++
	codec := p.choose(c)
	if codec == transport.CodecNone {
		return nil, codec, nil
	}
	packed, err := p.try(t, c, codec, size, parts)
	if packed == nil {
		return nil, transport.CodecNone, err
	}
	return packed, codec, nil
}

// choose picks the cheapest codec, or the one that was asked for if it pays.
func (p *Packer) choose(c *class) transport.Codec {
	best, link := transport.CodecNone, p.link.perByte()
	cost := measure{ratio: 1}.cost(link)
	for _, codec := range p.codecs {
		m := c.measured[codec]
		if m.ratio > maxRatio || (p.auto && m.cost(link) >= cost) {
			continue
		}
		best, cost = codec, m.cost(link)
	}
	return best
}

// sample measures every codec with a part of the batch.
func (p *Packer) sample(t transport.Type, c *class, parts [][]byte) error {
	from := parts[0]
	for _, part := range parts {
		if len(part) > len(from) {
			from = part
		}
	}
	if len(from) > sampleSize {
		from = from[(len(from)-sampleSize)/2:][:sampleSize]
	}
	for _, codec := range p.codecs {
		if _, err := p.try(t, c, codec, len(from), [][]byte{from}); err != nil {
			return err
		}
	}
	return nil
}

// try packs and measures.
func (p *Packer) try(t transport.Type, c *class, codec transport.Codec, size int, parts [][]byte) ([]byte, error) {
	start := time.Now()
	packed, err := p.pack1.Pack(t, codec, parts...)
	length := len(packed)
	if packed == nil {
		length = size
	}
	c.measured[codec].learn(size, length, time.Since(start))
	return packed, err
}

// looksRandom takes a sample of b and tells whether its bytes are about equally
// frequent, as in what is packed or encrypted already. The sum of the squares
// of their counts is least then.
func looksRandom(b []byte) bool {
	const size = noisePieces * noisePiece
	if len(b) < size {
		return false
	}
	var counts [256]int
	for i := range noisePieces {
		from := (len(b) - noisePiece) / (noisePieces - 1) * i
		for _, x := range b[from : from+noisePiece] {
			counts[x]++
		}
	}
	squares := 0
	for _, n := range counts {
		squares += n * n
	}
	const random = size + size*(size-1)/256
	return squares < random*11/10
}
