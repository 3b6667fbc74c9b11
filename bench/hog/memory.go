package hog

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// memory is pages of a mapping, the first of which has the number first.
type memory struct {
	raw     []byte
	first   uint64
	content Content
}

// newMemory maps and fills that many bytes of private memory.
func newMemory(bytes uint64, content Content) (memory, error) {
	raw, err := mapMemory(bytes, unix.MAP_PRIVATE)
	if err != nil {
		return memory{}, err
	}
	m := memory{raw: raw, content: content}
	for i := range m.pages() {
		if content == Random || i%4 >= 2 {
			content.render(m.page(i), i, 0)
		} else {
			raw[i*pageSize] = 0 // there, and zero
		}
	}
	return m, nil
}

func mapMemory(bytes uint64, kind int) ([]byte, error) {
	raw, err := unix.Mmap(-1, 0, int(bytes), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANONYMOUS|kind)
	if err != nil {
		return nil, fmt.Errorf("map %d bytes: %w", bytes, err)
	}
	return raw, nil
}

func (m memory) pages() uint64 { return uint64(len(m.raw) / pageSize) }

func (m memory) page(i uint64) *[pageWords]uint64 {
	return (*[pageWords]uint64)(unsafe.Pointer(&m.raw[i*pageSize]))
}

// bytesOf is the page as bytes.
func bytesOf(page *[pageWords]uint64) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(page)), pageSize)
}

// parts cuts the memory in n parts of about the same size.
func (m memory) parts(n uint64) []memory {
	parts := make([]memory, n)
	for i := range n {
		from, to := m.pages()*i/n, m.pages()*(i+1)/n
		parts[i] = memory{raw: m.raw[from*pageSize : to*pageSize], first: m.first + from, content: m.content}
	}
	return parts
}

// write makes the next version of page i.
func (m memory) write(i uint64) {
	page := m.page(i)
	renderRandom(page, m.first+i, page[1]+1)
}

// check counts the pages that are wrong and adds up the versions.
func (m memory) check() (bad, versions uint64) {
	var want [pageWords]uint64
	for i := range m.pages() {
		page, number := m.page(i), m.first+i
		if m.content == Random {
			if !isRandom(page, number) {
				bad++
			}
			versions += page[1]
			continue
		}
		if m.content.render(&want, number, 0); *page != want {
			bad++
		}
	}
	return bad, versions
}
