package blocks

import (
	"encoding/binary"
	"errors"
	"io"
	"math/bits"
	"unsafe"

	"github.com/zeebo/xxh3"
	"golang.org/x/sys/unix"

	"github.com/vzkit/vzkit/transport"
	"github.com/vzkit/vzkit/transport/pack"
)

// worker is one core's part.
type worker struct {
	*sender
	packer *pack.Packer
	buf    []byte // a unit, aligned to Block
}

// alignedBuffer is memory that can be read into past the page cache.
func alignedBuffer(n int) []byte {
	b := make([]byte, n+Block)
	skip := -int(uintptr(unsafe.Pointer(&b[0]))) & (Block - 1)
	return b[skip : skip+n : skip+n]
}

// unit sends what has to go of one unit.
func (k *worker) unit(u work) error {
	s := k.src
	from := u.number * s.unit()
	valid := maskOf((min(s.size-from, s.unit()) + 1<<s.shift - 1) >> s.shift)
	set := u.set & valid
	data, err := s.data(from, set)
	if err == nil {
		data, err = k.read(from, data)
	}
	if err != nil {
		return err
	}
	sum := uint64(unknown)
	if set == valid {
		sum = k.sum(data, min(s.size-from, s.unit()))
	}
	same := u.compare && sum == s.sums[u.number]
	s.sums[u.number] = sum
	k.count(uint64(bits.OnesCount64(set)) << (s.shift - minShift))
	if same {
		return nil
	}
	holes := set &^ data
	if s.first {
		holes = 0 // there is nothing yet
	}
	return k.send(from, data, holes)
}

func maskOf(n int64) uint64 {
	if n >= unitBlocks {
		return ^uint64(0)
	}
	return 1<<n - 1
}

// data leaves in set the blocks that have any.
func (s *Source) data(from int64, set uint64) (uint64, error) {
	var has uint64
	end := min(from+s.unit(), s.size)
	for at := from; at < end; {
		data, to, err := s.nextData(at, end)
		if err != nil {
			return 0, err
		}
		if data < to {
			last := (to - 1 - from) >> s.shift
			has |= maskOf(last+1) &^ maskOf((data-from)>>s.shift)
		}
		at = to
	}
	return has & set, nil
}

// read reads the blocks of data, and leaves in it those that are not zero.
func (k *worker) read(from int64, data uint64) (uint64, error) {
	var left uint64
	err := k.runs(from, data, func(first int, at int64, b []byte) error {
		if err := k.pread(b, at); err != nil {
			return err
		}
		for i := 0; len(b) > 0; i++ {
			n := min(1<<k.src.shift, len(b))
			if !isZero(b[:n]) {
				left |= 1 << (first + i)
			}
			b = b[n:]
		}
		return nil
	})
	return left, err
}

// runs calls do for each run of bits in set: the first of them, where it is in
// the file, and the buffer for it.
func (k *worker) runs(from int64, set uint64, do func(first int, at int64, b []byte) error) error {
	for set != 0 {
		first := bits.TrailingZeros64(set)
		n := bits.TrailingZeros64(^(set >> first))
		set &^= maskOf(int64(first+n)) &^ maskOf(int64(first))
		start := int64(first) << k.src.shift
		end := min(int64(first+n)<<k.src.shift, k.src.size-from)
		if err := do(first, from+start, k.buf[start:end]); err != nil {
			return err
		}
	}
	return nil
}

// pread reads what must be there.
func (k *worker) pread(b []byte, at int64) error {
	for len(b) > 0 {
		n, err := unix.Pread(int(k.src.image.Fd()), b, at)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err == nil && n == 0 {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return imageError("read", k.src.image.Name(), err)
		}
		b, at = b[n:], at+int64(n)
	}
	return nil
}

func isZero(b []byte) bool {
	for len(b) >= 8 {
		if binary.NativeEndian.Uint64(b) != 0 {
			return false
		}
		b = b[8:]
	}
	return true
}

// sum is that of the unit, of which the blocks of data have been read.
func (k *worker) sum(data uint64, length int64) uint64 {
	if data == 0 {
		return hole
	}
	_ = k.runs(0, maskOf(unitBlocks)&^data, func(_ int, _ int64, b []byte) error { clear(b); return nil })
	return xxh3.HashSeed(k.buf[:length], k.src.seed) | 2
}

// send writes runs of data and holes.
func (k *worker) send(from int64, data, holes uint64) error {
	err := k.runs(from, data, func(_ int, at int64, b []byte) error {
		for len(b) > 0 {
			n := min(len(b), maxRun)
			if err := k.content(at, b[:n]); err != nil {
				return err
			}
			b, at = b[n:], at+int64(n)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return k.runs(from, holes, func(_ int, at int64, b []byte) error {
		return k.write(func() error {
			k.stats.Holes += uint64(len(b))
			return k.w.WriteFrame(transport.TypeBlocksHole, extent{at, int64(len(b))}.append(nil))
		})
	})
}

// content packs a run and writes it.
func (k *worker) content(at int64, b []byte) error {
	head := binary.BigEndian.AppendUint64(nil, uint64(at))
	plain := len(head) + len(b)
	packed, codec, err := k.packer.Pack(transport.TypeBlocksData, plain, head, b)
	if err != nil {
		return err
	}
	parts := [][]byte{head, b}
	if packed != nil {
		parts = [][]byte{packed}
	}
	return k.write(func() error {
		err := k.w.WriteEncoded(transport.TypeBlocksData, codec, plain, parts...)
		k.link.Saw(k.w.Busy())
		k.stats.Data += uint64(len(b))
		return err
	})
}
