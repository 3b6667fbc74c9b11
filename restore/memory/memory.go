// Package memory is the destination's store of a container's memory: what
// arrived of it, by space and address, before the container runs.
//
// Spaces and addresses are the tracker's (package dump/track). The memory of a
// process is a sparse file in a directory, which is to be on a tmpfs, with the
// virtual address as offset. A shared memory object is a memfd of its own, with
// the offsets of the object, that a restored process can map. Beside each file
// is a table of one byte for each page: not there, or the round that brought
// it, so that what was written last can be brought back first.
//
// A page that is not there is zero, or was never written; which of the two, the
// mapping tells. The store takes no more than the tmpfs could hold, memfds
// included: then its error has the kind fault.NoSpace.
//
// Sources: tmpfs(5), memfd_create(2), fallocate(2).
package memory

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/vzkit/vzkit/internal/fault"
)

const (
	// PageSize is the unit of memory, in bytes.
	PageSize = 4096
	// Shared is set in the number of a space that is a shared memory object.
	Shared = 1 << 63

	addressEnd = 1 << 47 // of a process: TASK_SIZE without LA57, and more than arm64's 39 bits
	maxSpaces  = 65536
	maxRound   = 255
)

// Store holds the memory. Puts, gets and releases of different pages may run
// at the same time.
type Store struct {
	dir   string
	limit uint64        // pages
	used  atomic.Uint64 // pages
	round atomic.Uint32

	mu     sync.RWMutex
	spaces map[uint64]*space
}

// New makes a store in an existing directory.
func New(dir string) (*Store, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return nil, fmt.Errorf("look at %q: %w", dir, err)
	}
	s := &Store{dir: dir, limit: fs.Blocks * uint64(fs.Bsize) / PageSize, spaces: map[uint64]*space{}}
	s.round.Store(1)
	return s, nil
}

// Close removes all that the store holds. Views of it end, too.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for number, sp := range s.spaces {
		errs = append(errs, sp.close())
		if number&Shared == 0 {
			errs = append(errs, os.Remove(sp.file.Name()))
		}
	}
	s.spaces = map[uint64]*space{}
	s.used.Store(0)
	return errors.Join(errs...)
}

// NextRound begins a round: what is put from now on counts as newer.
func (s *Store) NextRound() {
	if s.round.Load() < maxRound {
		s.round.Add(1)
	}
}

// Round is the current round, from 1; it stops at 255.
func (s *Store) Round() uint8 { return uint8(s.round.Load()) }

// Used is how much is there, in bytes.
func (s *Store) Used() uint64 { return s.used.Load() * PageSize }

// Put takes count pages of a space. Without data they are gone from now on.
func (s *Store) Put(number, address uint64, count uint32, data []byte) error {
	size := uint64(count) * PageSize
	if address%PageSize != 0 || address > addressEnd || size > addressEnd-address || count == 0 {
		return fault.New(fault.Protocol, "memory at %#x, %d pages, is out of bounds", address, count)
	}
	if data == nil {
		return s.Release(number, address, address+size)
	}
	if uint64(len(data)) != size {
		return fault.New(fault.Protocol, "memory at %#x, %d pages, has %d bytes", address, count, len(data))
	}
	sp, err := s.space(number)
	if err != nil {
		return err
	}
	if s.used.Load()+uint64(count) > s.limit {
		// Only now is it worth looking whether the pages are new.
		if s.used.Load()+uint64(count)-sp.present(address, address+size) > s.limit {
			return s.full()
		}
	}
	for rest := data; len(rest) > 0; {
		n, err := unix.Pwrite(sp.fd, rest, int64(address)+int64(len(data)-len(rest)))
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return s.failed(err)
		}
		rest = rest[n:]
	}
	s.used.Add(sp.stamp(address, address+size, s.Round()))
	return nil
}

func (s *Store) failed(err error) error {
	if err == unix.ENOSPC || err == unix.ENOMEM {
		return s.full()
	}
	return fmt.Errorf("store memory: %w", err)
}

func (s *Store) full() error {
	return fault.New(fault.NoSpace, "container's memory needs more than %d MiB of tmpfs", s.limit*PageSize>>20).
		WithHint("Free memory on the destination, or stop something in the container.")
}

// find returns a space that has something, or nil.
func (s *Store) find(number uint64) *space {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.spaces[number]
}

// space finds or makes a space.
func (s *Store) space(number uint64) (*space, error) {
	if sp := s.find(number); sp != nil {
		return sp, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if sp := s.spaces[number]; sp != nil {
		return sp, nil
	}
	if len(s.spaces) >= maxSpaces {
		return nil, fault.New(fault.Protocol, "more than %d memory spaces", maxSpaces)
	}
	f, err := s.create(number)
	if err != nil {
		return nil, s.failed(err)
	}
	sp := newSpace(f)
	s.spaces[number] = sp
	return sp, nil
}

// create makes a space's file.
func (s *Store) create(number uint64) (*os.File, error) {
	if number&Shared == 0 {
		f, err := os.OpenFile(filepath.Join(s.dir, fmt.Sprintf("space-%d", number)), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return nil, err
		}
		return f, f.Truncate(addressEnd) // so that all of it can be mapped
	}
	const name = "/dev/zero" // as the kernel calls shared anonymous memory
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// Object returns the memfd of a shared object, which it makes if nothing was
// put there. It stays the store's: its size is that of the last page put.
func (s *Store) Object(number uint64) (*os.File, error) {
	if number&Shared == 0 {
		return nil, fmt.Errorf("space %d is not shared", number)
	}
	sp, err := s.space(number)
	if err != nil {
		return nil, err
	}
	return sp.file, nil
}

// Get reads one page, if it is there.
func (s *Store) Get(number, address uint64, page []byte) (present bool, err error) {
	sp := s.find(number)
	if sp == nil || sp.present(address, address+PageSize) == 0 {
		return false, nil
	}
	n, err := unix.Pread(sp.fd, page[:PageSize], int64(address))
	if err == nil && n < PageSize {
		err = unix.EIO
	}
	if err != nil {
		return false, fmt.Errorf("read stored memory at %#x: %w", address, err)
	}
	return true, nil
}

// Page reads one page as a process would find it: zero where nothing is.
func (s *Store) Page(number, address uint64, page []byte) error {
	present, err := s.Get(number, address, page)
	if !present {
		clear(page)
	}
	return err
}

// Release drops the pages in [start, end) and gives their memory back.
func (s *Store) Release(number, start, end uint64) error {
	sp := s.find(number)
	if sp == nil {
		return nil
	}
	for r := range sp.runs(start, end, 1) {
		err := unix.Fallocate(sp.fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, int64(r.Address), int64(r.Count)*PageSize)
		if err != nil {
			return fmt.Errorf("release stored memory at %#x: %w", r.Address, err)
		}
		s.used.Add(-sp.stamp(r.Address, r.End(), 0))
	}
	return nil
}
