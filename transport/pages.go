package transport

import "encoding/binary"

// PageSize is the unit of Pages, in bytes, on every host.
const PageSize = 4096

// MaxPagesPerFrame is the most pages with data that one Pages carries.
const MaxPagesPerFrame = 128

// Space is a kind of address space.
type Space uint8

// The kinds of address spaces.
const (
	SpaceTask  Space = 1 // the memory of a process
	SpaceShmem Space = 2 // a shared memory object
)

// The flags of CRIU's pagemap entries (its criu/include/pagemap.h) that this
// package knows. PagePresent decides whether a run carries data.
const (
	PageParent  uint32 = 1 << 0 // in the parent image
	PageLazy    uint32 = 1 << 1 // may be filled in after the restore
	PagePresent uint32 = 1 << 2 // carried along
)

const pagesHeadSize = 28

// Pages is a run of pages of one address space: Count pages with Data if Flags
// has PagePresent, otherwise a mere statement about them, of any length.
type Pages struct {
	Space   Space
	ID      uint64 // the number CRIU gives the task or the object
	Address uint64 // in bytes, page-aligned; the offset in a shared object
	Count   uint32 // of pages; 0, without flags, announces the address space
	Flags   uint32 // CRIU's pagemap flags
	Data    []byte // Count * PageSize bytes, or empty
}

// WritePages writes p as one frame. Errors are those of WriteFrame, and
// fault.Protocol if p is not well-formed.
func (c *Conn) WritePages(p Pages) error {
	if err := p.check(); err != nil {
		return err
	}
	head := p.head()
	return c.WriteFrame(TypePages, head[:], p.Data)
}

// head is the payload without the data.
func (p Pages) head() (b [pagesHeadSize]byte) {
	b[0] = byte(p.Space)
	binary.BigEndian.PutUint32(b[4:], p.Count)
	binary.BigEndian.PutUint32(b[8:], p.Flags)
	binary.BigEndian.PutUint64(b[12:], p.ID)
	binary.BigEndian.PutUint64(b[20:], p.Address)
	return b
}

// ParsePages reads and checks the payload of a pages frame. Data is part of b.
// Errors have kind fault.Protocol.
func ParsePages(b []byte) (Pages, error) {
	if len(b) < pagesHeadSize {
		return Pages{}, malformed(TypePages, "%d bytes, want at least %d", len(b), pagesHeadSize)
	}
	if b[1]|b[2]|b[3] != 0 {
		return Pages{}, malformed(TypePages, "reserved bytes % x", b[1:4])
	}
	p := Pages{
		Space:   Space(b[0]),
		Count:   binary.BigEndian.Uint32(b[4:]),
		Flags:   binary.BigEndian.Uint32(b[8:]),
		ID:      binary.BigEndian.Uint64(b[12:]),
		Address: binary.BigEndian.Uint64(b[20:]),
		Data:    b[pagesHeadSize:],
	}
	if err := p.check(); err != nil {
		return Pages{}, err
	}
	return p, nil
}

func (p Pages) check() error {
	length := uint64(p.Count) * PageSize
	data := uint64(0)
	if p.Flags&PagePresent != 0 {
		data = length
	}
	switch {
	case p.Space != SpaceTask && p.Space != SpaceShmem:
		return malformed(TypePages, "space %d not known", p.Space)
	case p.Count == 0 && (p.Flags != 0 || len(p.Data) > 0):
		return malformed(TypePages, "no pages")
	case p.Address%PageSize != 0:
		return malformed(TypePages, "address %#x not page-aligned", p.Address)
	case p.Address+length < length:
		return malformed(TypePages, "%d pages at %#x overflow", p.Count, p.Address)
	case data > MaxPagesPerFrame*PageSize:
		return malformed(TypePages, "%d pages exceed %d", p.Count, MaxPagesPerFrame)
	case uint64(len(p.Data)) != data:
		return malformed(TypePages, "%d bytes of data, want %d", len(p.Data), data)
	}
	return nil
}
