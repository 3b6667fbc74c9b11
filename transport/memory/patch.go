package memory

import (
	"encoding/binary"
	"math/bits"
)

const (
	maxPatch = pageSize / 2 // what is longer goes raw
	maxGap   = 2            // equal bytes that are cheaper sent than skipped
)

// rewritten looks at some words of a page and tells whether so many of them
// differ that a patch is not worth trying.
func rewritten(base, page []byte) bool {
	const probes = 32
	n := 0
	for i := 0; i < pageSize; i += pageSize / probes {
		if binary.LittleEndian.Uint64(base[i:]) != binary.LittleEndian.Uint64(page[i:]) {
			n++
		}
	}
	return n > probes*3/4
}

// appendPatch appends the steps from base to page, or gives up when they are
// longer than maxPatch.
func appendPatch(b, base, page []byte) ([]byte, bool) {
	start := len(b)
	for end := 0; ; {
		from := difference(base, page, end)
		if from == pageSize {
			return b, true
		}
		to := differenceEnd(base, page, from, start+maxPatch-len(b))
		b = appendStep(b, from-end, page[from:to])
		if len(b)-start > maxPatch {
			return b[:start], false
		}
		end = to
	}
}

// difference is the offset from i on where a and b first differ.
func difference(a, b []byte, i int) int {
	for ; i+8 <= pageSize; i += 8 {
		if x := binary.LittleEndian.Uint64(a[i:]) ^ binary.LittleEndian.Uint64(b[i:]); x != 0 {
			return i + bits.TrailingZeros64(x)/8
		}
	}
	for ; i < pageSize && a[i] == b[i]; i++ {
	}
	return i
}

// differenceEnd is where the difference at i ends: more than maxGap equal bytes
// follow. It looks no further than limit bytes.
func differenceEnd(a, b []byte, i, limit int) int {
	last := i
	for stop := min(pageSize, i+limit+1); i < stop && i-last <= maxGap; i++ {
		if a[i] != b[i] {
			last = i
		}
	}
	return last + 1
}

func appendStep(b []byte, skip int, fresh []byte) []byte {
	n := len(fresh)
	b = binary.AppendUvarint(b, uint64(skip)<<2|uint64(min(n-1, 3)))
	if n > 3 {
		b = binary.AppendUvarint(b, uint64(n-4))
	}
	return append(b, fresh...)
}

// patch applies the next patch of r to page.
func (r *reader) patch(page []byte) error {
	length, err := r.varint()
	if err != nil {
		return err
	}
	if length > uint64(len(r.b)) {
		return malformed("patch of %d bytes, %d left", length, len(r.b))
	}
	steps := reader{r.b[:length]}
	r.b = r.b[length:]
	for end := uint64(0); len(steps.b) > 0; {
		if end, err = steps.step(page, end); err != nil {
			return err
		}
	}
	return nil
}

// step applies one step at offset end, and returns the offset behind it.
func (r *reader) step(page []byte, end uint64) (uint64, error) {
	head, err := r.varint()
	if err != nil {
		return 0, err
	}
	n := head&3 + 1
	if n == 4 {
		more, err := r.varint()
		if err != nil {
			return 0, err
		}
		n += min(more, pageSize)
	}
	from := end + head>>2
	if n > uint64(len(r.b)) || from+n > pageSize {
		return 0, malformed("patch of %d bytes at offset %d of a page", n, from)
	}
	copy(page[from:], r.b[:n])
	r.b = r.b[n:]
	return from + n, nil
}
