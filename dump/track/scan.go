package track

import (
	"encoding/binary"
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// PAGEMAP_SCAN of /proc/PID/pagemap (Linux include/uapi/linux/fs.h,
// Documentation/admin-guide/mm/pagemap.rst).
const (
	pagemapScan = 0xc0606610

	wpMatching   = 1 // PM_SCAN_WP_MATCHING
	checkWPAsync = 2 // PM_SCAN_CHECK_WPASYNC

	isWPAllowed = 1 << 0 // PAGE_IS_*
	isWritten   = 1 << 1
	isFile      = 1 << 2
	isPresent   = 1 << 3
	isSwapped   = 1 << 4 // also what has no page, but a marker
	isPFNZero   = 1 << 5
	isSoftDirty = 1 << 7
	isGuard     = 1 << 8 // since Linux 6.15
)

// region is struct page_region.
type region struct{ start, end, categories uint64 }

// scanArgument is struct pm_scan_arg.
type scanArgument struct {
	size, flags, start, end, walkEnd uint64
	vec                              *region
	vecLen, maxPages                 uint64
	inverted, mask, anyOf, ret       uint64
}

// query is what to look for.
type query struct{ flags, inverted, mask, anyOf, ret uint64 }

// scanner looks at page tables. It is for one goroutine.
type scanner struct {
	vec   []region
	guard uint64 // isGuard, if the kernel knows it
	plain bool   // no PAGEMAP_SCAN: read pagemap itself
	words []byte
}

const vecLen = 4096

func newScanner() (*scanner, error) {
	s := &scanner{vec: make([]region, vecLen)}
	fd, err := unix.Open("/proc/self/pagemap", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open own pagemap: %w", err)
	}
	defer unix.Close(fd)
	none := func([]region) error { return nil }
	at := addressOf(zeroPage[:]) &^ (PageSize - 1)
	if _, err := s.scan(fd, query{anyOf: isPresent, ret: isPresent}, at, at+PageSize, none); err != nil {
		s.plain = true
		s.words = make([]byte, 8*vecLen)
	} else if _, err := s.scan(fd, query{anyOf: isPresent, ret: isGuard}, at, at+PageSize, none); err == nil {
		s.guard = isGuard
	}
	return s, nil
}

// content asks for the pages of a private mapping that have content of their
// own: no zero pages, no pages of the file, no guards.
func (s *scanner) content(v *vma, flags, mask, ret uint64) query {
	not := isPFNZero | s.guard
	if v.class == fileCopy {
		not |= isFile
	}
	return query{flags: flags, inverted: not, mask: mask | not, anyOf: isPresent | isSwapped, ret: ret | isSwapped}
}

// scan passes what is found in [start, end), ascending, to found. It returns
// how far it came, for an error of the kernel.
func (s *scanner) scan(fd int, q query, start, end uint64, found func([]region) error) (at uint64, err error) {
	if s.plain {
		return end, s.read(fd, q, start, end, found)
	}
	arg := scanArgument{
		flags: q.flags, end: end, vec: &s.vec[0], vecLen: uint64(len(s.vec)),
		inverted: q.inverted, mask: q.mask, anyOf: q.anyOf, ret: q.ret,
	}
	arg.size = uint64(unsafe.Sizeof(arg))
	for at = start; at < end; {
		arg.start, arg.walkEnd = at, 0
		n, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), pagemapScan, uintptr(unsafe.Pointer(&arg)))
		runtime.KeepAlive(arg.vec)
		if errno != 0 {
			return at, errno
		}
		if n > 0 {
			if err := found(s.vec[:n]); err != nil {
				return at, err
			}
		}
		// If there was room left, that is all, whatever walkEnd is: it may be
		// where the kernel last emptied its own buffer (seen in Linux 6.18).
		if int(n) < len(s.vec) {
			break
		}
		at = max(arg.walkEnd, s.vec[n-1].end)
	}
	return end, nil
}

// read does the same by reading pagemap (Linux before 6.7). It cannot tell zero
// pages, and has nothing that write-protects.
func (s *scanner) read(fd int, q query, start, end uint64, found func([]region) error) error {
	n := 0
	for at := start; at < end; {
		want := min(uint64(len(s.words)), (end-at)/PageSize*8)
		got, err := unix.Pread(fd, s.words[:want], int64(at/PageSize*8))
		if err != nil {
			return err
		}
		if got < 8 {
			break // beyond the last mapping, or the memory is gone
		}
		for i := 0; i+8 <= got; i += 8 {
			c := categories(binary.NativeEndian.Uint64(s.words[i:]))
			if n = s.append(n, q, at, c); n == len(s.vec) {
				if err := found(s.vec); err != nil {
					return err
				}
				n = 0
			}
			at += PageSize
		}
	}
	if n == 0 {
		return nil
	}
	return found(s.vec[:n])
}

// append adds a page to the first n regions, if it is one that is asked for.
func (s *scanner) append(n int, q query, at, c uint64) int {
	if seen := c ^ q.inverted; seen&q.mask != q.mask || q.anyOf != 0 && seen&q.anyOf == 0 {
		return n
	}
	c &= q.ret
	if n > 0 && s.vec[n-1].end == at && s.vec[n-1].categories == c {
		s.vec[n-1].end += PageSize
		return n
	}
	s.vec[n] = region{at, at + PageSize, c}
	return n + 1
}

// categories translates an entry of pagemap.
func categories(entry uint64) (c uint64) {
	for _, b := range []struct {
		bit      int
		category uint64
	}{{63, isPresent}, {62, isSwapped}, {61, isFile}, {58, isGuard}, {55, isSoftDirty}} {
		if entry>>b.bit&1 != 0 {
			c |= b.category
		}
	}
	return c
}

func addressOf(b []byte) uint64 { return uint64(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) }
