// Package restore builds a container from what arrived: its memory and CRIU's
// images in a private tmpfs, its processes by CRIU, held frozen until they may
// run.
//
// The package knows nothing of where the state comes from.
package restore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/checkpoint-restore/go-criu/v7/crit/images/pagemap"
	"github.com/checkpoint-restore/go-criu/v7/magic"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/vzkit/vzkit/internal/fault"
)

// PageSize is the unit of memory, in bytes.
const PageSize = 4096

// Store takes in a container's state and has it ready for CRIU: a tmpfs that
// holds its images, with the pages in pages-N.img, in the order in which they
// came, and the descriptions of the runs in pagemap-*.img, as CRIU's own page
// server writes them (criu.org/Images).
type Store struct {
	dir       string
	limit     uint64 // bytes
	used      uint64
	maps      map[space]*pageMap
	images    map[string]*os.File // being written
	described bool                // pages and pagemaps come as images
	closed    bool
}

// space is an address space: a process's or a shared object's.
type space struct {
	shared bool
	id     uint64
}

// maxSpaces bounds how many address spaces a peer may open; each one costs two
// descriptors. It is Linux's default limit on processes of a container.
const maxSpaces = 32768

// NewStore mounts a tmpfs of at most limit bytes on dir, which is made and must
// be new. Close unmounts and removes it.
func NewStore(dir string, limit uint64) (*Store, error) {
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return nil, fmt.Errorf("make store: %w", err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make store: %w", err)
	}
	options := fmt.Sprintf("size=%d,mode=0711", limit) // CRIU looks for optional images as the container's root
	if err := unix.Mount("vzkit", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, options); err != nil {
		return nil, errors.Join(fmt.Errorf("mount store: %w", err), os.Remove(dir))
	}
	return &Store{dir: dir, limit: limit, maps: map[space]*pageMap{}, images: map[string]*os.File{}}, nil
}

// Dir is where the images are.
func (s *Store) Dir() string { return s.dir }

// Close removes the store and all in it.
func (s *Store) Close() error {
	if s.closed {
		return nil
	}
	s.closed = true
	s.closeFiles()
	if err := unix.Unmount(s.dir, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount store: %w", err)
	}
	return os.Remove(s.dir)
}

func (s *Store) closeFiles() {
	for _, m := range s.maps {
		m.pages.Close()
		m.entries.Close()
	}
	for _, f := range s.images {
		f.Close()
	}
	s.maps, s.images = map[space]*pageMap{}, map[string]*os.File{}
}

// Image appends data to the named image; last ends it. Pages and pagemaps come
// either as images or as runs: once there are runs, their names are the
// store's own.
func (s *Store) Image(name string, data []byte, last bool) error {
	memory := strings.HasPrefix(name, "pages-") || strings.HasPrefix(name, "pagemap-")
	if name != filepath.Base(name) || filepath.Ext(name) != ".img" || memory && len(s.maps) > 0 {
		return fault.New(fault.Protocol, "image name %q is not allowed", name)
	}
	s.described = s.described || memory
	f := s.images[name]
	if f == nil {
		var err error
		// O_EXCL: an image that has ended is not continued
		f, err = os.OpenFile(filepath.Join(s.dir, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		if errors.Is(err, os.ErrExist) {
			return fault.New(fault.Protocol, "image %q comes twice", name)
		}
		if err != nil {
			return s.full(err)
		}
		s.images[name] = f
	}
	if err := s.write(f, data); err != nil {
		return err
	}
	if last {
		delete(s.images, name)
		return f.Close()
	}
	return nil
}

func (s *Store) write(f *os.File, data []byte) error {
	s.used += uint64(len(data))
	_, err := f.Write(data)
	return s.full(err)
}

// full gives an error of the file system its kind.
func (s *Store) full(err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.ENOMEM) {
		return fault.New(fault.NoSpace, "container's state needs more than %d MiB of tmpfs", s.limit>>20).
			WithHint("Free memory on the destination, or stop something in the container.")
	}
	return err
}

// Finish ends the store's writing: all images must be complete.
func (s *Store) Finish() error {
	for name := range s.images {
		return fault.New(fault.Protocol, "image %q has no end", name)
	}
	for _, m := range s.maps {
		if err := m.flush(s); err != nil {
			return err
		}
	}
	s.closeFiles()
	if s.described {
		return s.dropLazy()
	}
	return nil
}

// Pages takes a run of count pages of an address space, with flags as CRIU's
// pagemap has them and data for runs that have content.
func (s *Store) Pages(shared bool, id, address uint64, count, flags uint32, data []byte) error {
	if s.described {
		return fault.New(fault.Protocol, "pages come as runs and as images")
	}
	m, err := s.open(space{shared, id})
	if err != nil {
		return err
	}
	if count == 0 { // there is such an address space
		return nil
	}
	if err := m.add(s, address, count, flags); err != nil {
		return err
	}
	return s.write(m.pages, data)
}

func (s *Store) open(sp space) (*pageMap, error) {
	if m := s.maps[sp]; m != nil {
		return m, nil
	}
	if len(s.maps) >= maxSpaces {
		return nil, fault.New(fault.Protocol, "more than %d address spaces", maxSpaces)
	}
	name := fmt.Sprintf("pagemap-%d.img", sp.id)
	if sp.shared {
		name = fmt.Sprintf("pagemap-shmem-%d.img", sp.id)
	}
	number := uint32(len(s.maps) + 1)
	m := &pageMap{}
	var err error
	if m.entries, err = os.OpenFile(filepath.Join(s.dir, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644); err != nil {
		return nil, s.full(err)
	}
	pages := filepath.Join(s.dir, fmt.Sprintf("pages-%d.img", number))
	if m.pages, err = os.OpenFile(pages, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644); err != nil {
		m.entries.Close()
		return nil, s.full(err)
	}
	s.maps[sp] = m
	return m, m.begin(s, number)
}

// pageMap is one address space's pagemap and pages.
type pageMap struct {
	entries, pages *os.File
	next           pagemap.PagemapEntry // not written yet: it may still grow
	buf            []byte
}

func (m *pageMap) begin(s *Store, number uint32) error {
	numbers := magic.LoadMagic().ByName
	head := binary.LittleEndian.AppendUint32(nil, uint32(numbers["IMG_COMMON"]))
	head = binary.LittleEndian.AppendUint32(head, uint32(numbers["PAGEMAP"]))
	if err := s.write(m.entries, head); err != nil {
		return err
	}
	return m.record(s, &pagemap.PagemapHead{PagesId: proto.Uint32(number)})
}

// record appends a message to the pagemap, with its size before it.
func (m *pageMap) record(s *Store, msg proto.Message) error {
	body, err := proto.Marshal(msg)
	if err != nil {
		return fmt.Errorf("encode pagemap: %w", err)
	}
	m.buf = binary.LittleEndian.AppendUint32(m.buf[:0], uint32(len(body)))
	return s.write(m.entries, append(m.buf, body...))
}

// add describes a run, as one entry with the run before it where they join.
func (m *pageMap) add(s *Store, address uint64, count, flags uint32) error {
	e := &m.next
	if e.Vaddr != nil && e.GetFlags() == flags && uint64(e.GetNrPages())+uint64(count) <= 1<<31 &&
		e.GetVaddr()+uint64(e.GetNrPages())*PageSize == address {
		*e.NrPages += count
		return nil
	}
	if err := m.flush(s); err != nil {
		return err
	}
	e.Vaddr, e.NrPages, e.Flags = &address, &count, &flags
	return nil
}

func (m *pageMap) flush(s *Store) error {
	if m.next.Vaddr == nil {
		return nil
	}
	err := m.record(s, &m.next)
	m.next.Reset()
	return err
}
