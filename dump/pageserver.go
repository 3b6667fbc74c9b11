package dump

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/vzkit/vzkit/internal/fault"
)

// PageSize is the unit of memory, in bytes.
const PageSize = 4096

// Space is a kind of address space.
type Space uint8

// The kinds of address space; the numbers are those of CRIU's page server.
const (
	SpaceTask  Space = 1 // a process, by its pid in the container
	SpaceShmem Space = 2 // a shared memory object, by CRIU's number for it
)

// Run is a run of pages of one address space.
type Run struct {
	Space   Space
	ID      uint64
	Address uint64 // of the first page; in a shared object its offset
	Count   uint32 // pages; 0 where an address space is only announced
	Flags   uint32 // CRIU's PE_… (criu/include/pagemap.h)
	Data    []byte // Count pages, or none if the run carries no content
}

// Flags of runs: content in a parent image, content that follows.
const (
	flagParent  = 1 << 0 // PE_PARENT
	flagPresent = 1 << 2 // PE_PRESENT
)

// maxRun is how many pages with content are passed on at a time.
const maxRun = 128

// Commands of the page server's protocol (criu/page-xfer.c, 3.x to 4.x).
const (
	cmdAdd        = 1
	cmdHole       = 2
	cmdOpen       = 3
	cmdOpen2      = 4
	cmdParent     = 5
	cmdAddFlags   = 6
	cmdClose      = 0x1023
	cmdForceClose = 0x1024

	cmdBits  = 16 // below them the command, above them the flags
	typeBits = 8  // of a destination id: below them the space
)

// pageServer is the receiving end of CRIU's page-server protocol on a socket
// that CRIU inherits (--ps-socket). The stream is headers of four integers,
// command, number of pages, address and destination, each add with flags
// PE_PRESENT followed by the pages themselves.
type pageServer struct {
	theirs *os.File
	ours   *os.File
	sink   Sink
	header int // size of a header, 0 until the first has come
	pages  uint64
	failed error // the first error of the sink or ctx: nothing is passed on after it
	done   chan struct{}
	err    error // of serve, once done is closed
}

func newPageServer() (*pageServer, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socket pair for pages: %w", err)
	}
	for _, fd := range pair {
		// Larger buffers keep CRIU reading while a frame goes out; the kernel
		// caps what it does not allow.
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 4<<20)
	}
	return &pageServer{ours: os.NewFile(uintptr(pair[0]), "pages"), theirs: os.NewFile(uintptr(pair[1]), "pages")}, nil
}

// start begins to serve.
func (s *pageServer) start(ctx context.Context, sink Sink) {
	s.sink, s.done = sink, make(chan struct{})
	go func() {
		defer close(s.done)
		s.err = s.serve(ctx)
	}()
}

// finish waits for the end of the stream, which CRIU announces when it has
// written all pages and which its exit brings about in any case. A server that
// has not been started has nothing to wait for. Finishing twice is fine.
func (s *pageServer) finish() (pages uint64, err error) {
	s.theirs.Close()
	if s.done != nil {
		<-s.done
	}
	s.ours.Close()
	return s.pages, s.err
}

// serve reads until CRIU is done. After an error, or when ctx has ended, it
// goes on reading and answering without passing anything on: a page server
// that stops reading would leave CRIU waiting with the tasks in its hands.
func (s *pageServer) serve(ctx context.Context) error {
	buf := make([]byte, maxRun*PageSize)
	for {
		h, err := s.next()
		if errors.Is(err, io.EOF) {
			return s.failed
		}
		if s.failed == nil {
			s.failed = ctx.Err()
		}
		if err == nil {
			err = s.handle(h, buf)
		}
		if err == nil && h.closes() {
			return s.failed
		}
		if err != nil {
			s.refuse()
			return errors.Join(s.failed, fault.New(fault.Checkpoint, "page server: %w", err))
		}
	}
}

// refuse makes CRIU give up: it hears no more answers, and what it still
// writes is read, so that it does not hang with the tasks in its hands.
func (s *pageServer) refuse() {
	if raw, err := s.ours.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { _ = unix.Shutdown(int(fd), unix.SHUT_WR) })
	}
	_, _ = io.Copy(io.Discard, s.ours)
}

type pageHeader struct {
	command, flags    uint32
	pages, addr, dest uint64
}

func (h pageHeader) closes() bool { return h.command == cmdClose || h.command == cmdForceClose }

// next reads a header. CRIU up to 4.1 counts pages in 32 bits, later ones in
// 64; the first header opens an address space and has zero pages and address,
// so the place of its destination tells which CRIU this is.
func (s *pageServer) next() (pageHeader, error) {
	const narrow, wide = 24, 32
	var b [wide]byte
	size := s.header
	if size == 0 {
		size = narrow
	}
	if _, err := io.ReadFull(s.ours, b[:size]); err != nil {
		return pageHeader{}, err
	}
	word := binary.NativeEndian.Uint32(b[:])
	h := pageHeader{command: word & (1<<cmdBits - 1), flags: word >> cmdBits}
	if h.closes() { // its other fields say nothing
		return h, nil
	}
	if s.header == 0 {
		s.header = narrow
		if binary.NativeEndian.Uint64(b[16:]) == 0 {
			s.header = wide
			if _, err := io.ReadFull(s.ours, b[narrow:]); err != nil {
				return h, io.ErrUnexpectedEOF
			}
		}
	}
	if s.header == narrow {
		h.pages = uint64(binary.NativeEndian.Uint32(b[4:]))
		h.addr, h.dest = binary.NativeEndian.Uint64(b[8:]), binary.NativeEndian.Uint64(b[16:])
	} else {
		h.pages = binary.NativeEndian.Uint64(b[8:])
		h.addr, h.dest = binary.NativeEndian.Uint64(b[16:]), binary.NativeEndian.Uint64(b[24:])
	}
	return h, nil
}

func (s *pageServer) handle(h pageHeader, buf []byte) error {
	switch h.command {
	case cmdParent:
		return nil
	case cmdOpen:
		return s.open(h)
	case cmdOpen2: // answered by whether there is a parent image: never
		if err := s.open(h); err != nil {
			return err
		}
		return s.answer(0)
	case cmdClose, cmdForceClose: // answered by a status, not zero for failure
		status := byte(0)
		if s.failed != nil {
			status = 1
		}
		return s.answer(status, 0, 0, 0)
	case cmdAdd:
		h.flags = flagPresent
	case cmdHole:
		h.flags = flagParent
	case cmdAddFlags:
	default:
		return fmt.Errorf("unknown command %#x", h.command)
	}
	return s.add(h, buf)
}

func (s *pageServer) answer(b ...byte) error {
	_, err := s.ours.Write(b)
	return err
}

// open passes on that there is an address space: CRIU wants to hear of each
// one at the restore, also if none of its pages follows.
func (s *pageServer) open(h pageHeader) error {
	run, err := h.run()
	if err == nil && s.failed == nil {
		s.failed = s.sink.Pages(run)
	}
	return err
}

// run is what a header is about, without any pages.
func (h pageHeader) run() (Run, error) {
	run := Run{Space: Space(h.dest & (1<<typeBits - 1)), ID: h.dest >> typeBits}
	if run.Space != SpaceTask && run.Space != SpaceShmem {
		return run, fmt.Errorf("run of %d pages for %#x", h.pages, h.dest)
	}
	return run, nil
}

// add passes a run on, in pieces of at most maxRun pages.
func (s *pageServer) add(h pageHeader, buf []byte) error {
	run, err := h.run()
	if err != nil || h.pages > 1<<36 {
		return fmt.Errorf("run of %d pages for %#x", h.pages, h.dest)
	}
	run.Address, run.Flags = h.addr, h.flags
	for left := h.pages; left > 0; left -= uint64(run.Count) {
		run.Count, run.Data = uint32(min(left, 1<<30)), nil
		if run.Flags&flagPresent != 0 {
			run.Count = uint32(min(left, maxRun))
			run.Data = buf[:run.Count*PageSize]
			if _, err := io.ReadFull(s.ours, run.Data); err != nil {
				return err
			}
			s.pages += uint64(run.Count)
		}
		if s.failed == nil {
			s.failed = s.sink.Pages(run)
		}
		run.Address += uint64(run.Count) * PageSize
	}
	return nil
}
