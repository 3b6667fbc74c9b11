package memory

import (
	"encoding/binary"
	"math/bits"

	"github.com/vzkit/vzkit/transport"
)

const pageSize = transport.PageSize

// maxPage is the end of an address space, in pages: 2^64 bytes.
const maxPage = 1 << 52

// place names a page: its space, and its address divided by the page size.
type place struct{ space, page uint64 }

// plus is the place n pages further on.
func (p place) plus(n uint64) place { return place{p.space, p.page + n} }

// address is in bytes.
func (p place) address() uint64 { return p.page * pageSize }

// appendPlace encodes p relative to other.
func appendPlace(b []byte, p, other place) []byte {
	code := zigzag(int64(p.page-other.page)) << 1
	if p.space == other.space {
		return binary.AppendUvarint(b, code)
	}
	b = binary.AppendUvarint(b, code|1)
	return binary.AppendUvarint(b, bits.RotateLeft64(p.space, 1))
}

// place is appendPlace's counterpart. The page is below maxPage.
func (r *reader) place(other place) (place, error) {
	code, err := r.varint()
	if err != nil {
		return place{}, err
	}
	p := place{other.space, other.page + uint64(unzigzag(code>>1))}
	if p.page >= maxPage {
		return place{}, malformed("page %#x out of range", p.page)
	}
	if code&1 != 0 {
		space, err := r.varint()
		if err != nil {
			return place{}, err
		}
		p.space = bits.RotateLeft64(space, -1)
	}
	return p, nil
}

func zigzag(n int64) uint64   { return uint64(n<<1) ^ uint64(n>>63) }
func unzigzag(n uint64) int64 { return int64(n>>1) ^ -int64(n&1) }
