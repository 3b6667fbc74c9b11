// Package describe keeps CRIU from touching memory that somebody else takes:
// it answers what CRIU asks about a frozen container, so that CRIU writes down
// mappings and finds no pages in them.
//
// CRIU asks for pages with ioctl(PAGEMAP_SCAN) for private memory
// (criu/pagemap-cache.c) and with lseek(SEEK_DATA) for shared memory and memfd
// (criu/shmem.c). Describer answers these calls, which package preload
// intercepts: what is in a tracker's layout is not there, everything else is as
// it is. Before it asks, CRIU reads /proc/PID/smaps, for which the kernel walks
// all page tables; Copy gives it a copy that was taken earlier.
//
// Where anything is not as expected, CRIU gets the truth: it then takes pages
// for nothing, but none are lost.
package describe

import (
	"encoding/binary"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/vzkit/vzkit/dump/track"
	"github.com/vzkit/vzkit/internal/criu/preload"
)

// Describer answers for one dump.
type Describer struct {
	device uint64 // of memfds and anonymous shared memory

	mu      sync.Mutex
	ranges  map[int][]track.Range // by pid, ascending
	objects map[uint64]bool       // by inode
	files   map[int]*os.File      // pagemaps, by pid
	empty   []int                 // sockets for lists of connections that are empty
	hidden  int
}

// New returns a describer that hides nothing yet.
func New() (*Describer, error) {
	fd, err := unix.MemfdCreate("", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make memfd: %w", err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, fmt.Errorf("find device of shared memory: %w", err)
	}
	return &Describer{device: uint64(st.Dev), files: map[int]*os.File{}}, nil
}

// Hide has the memory in the layout hidden from now on.
func (d *Describer) Hide(l *track.Layout) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ranges, d.objects = map[int][]track.Range{}, map[uint64]bool{}
	for _, p := range l.Processes {
		d.ranges[p.PID] = p.Ranges
	}
	for _, o := range l.Objects {
		d.objects[o.Inode] = true
	}
}

// Empty has the next requests for netfilter's connections get these
// descriptors of CRIU's, one each: sockets from EmptySocket.
func (d *Describer) Empty(fds ...int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.empty = fds
}

// Hidden is how many of CRIU's questions were answered otherwise than the
// kernel would.
func (d *Describer) Hidden() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.hidden
}

// Close lets go of the processes.
func (d *Describer) Close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, f := range d.files {
		f.Close()
	}
	d.files = map[int]*os.File{}
}

// Answer is for preload.Serve.
func (d *Describer) Answer(c preload.Call) preload.Answer {
	d.mu.Lock()
	defer d.mu.Unlock()
	var a preload.Answer
	switch c.Number {
	case unix.SYS_IOCTL:
		a = d.pages(c)
	case unix.SYS_LSEEK:
		a = d.data(c)
	case unix.SYS_SOCKET:
		a = d.connections()
	}
	if a != (preload.Answer{}) {
		d.hidden++
	}
	return a
}

// path of a descriptor of CRIU's.
func path(c preload.Call) string { return fmt.Sprintf("/proc/%d/fd/%d", c.PID, int32(c.Args[0])) }

// data answers lseek(fd, offset, SEEK_DATA): no data from there on.
func (d *Describer) data(c preload.Call) preload.Answer {
	var st unix.Stat_t
	if unix.Stat(path(c), &st) != nil || uint64(st.Dev) != d.device || !d.objects[st.Ino] {
		return preload.Answer{}
	}
	// The inode of a System V segment is its id and says nothing on its own.
	if name, err := os.Readlink(path(c)); err != nil || strings.HasPrefix(name, "/SYSV") {
		return preload.Answer{}
	}
	return preload.Errno(unix.ENXIO)
}

// pages answers ioctl(fd, PAGEMAP_SCAN, argument).
func (d *Describer) pages(c preload.Call) preload.Answer {
	arg, err := readArgument(c.PID, c.Args[2])
	if err != nil || !arg.forContent() {
		return preload.Answer{}
	}
	pid := ownerOf(path(c))
	ranges := d.ranges[pid]
	if len(ranges) == 0 {
		return preload.Answer{}
	}
	rest := subtract(track.Range{Start: arg.Start, End: arg.End}, ranges)
	if len(rest) == 1 && rest[0] == (track.Range{Start: arg.Start, End: arg.End}) {
		return preload.Answer{}
	}
	found, err := d.scan(pid, arg, rest)
	if err == nil {
		err = found.write(c.PID, c.Args[2], arg)
	}
	if err != nil {
		return preload.Answer{}
	}
	return preload.Return(len(found.regions))
}

// ownerOf is the process whose pagemap an open file is, 0 if it is none. The
// path may begin with that of a chroot.
func ownerOf(fd string) (pid int) {
	name, err := os.Readlink(fd)
	if err != nil {
		return 0
	}
	name, ok := strings.CutSuffix(name, "/pagemap")
	if !ok {
		return 0
	}
	pid, _ = strconv.Atoi(name[strings.LastIndexByte(name, '/')+1:])
	return pid
}

// subtract is what is left of r without taken, ascending.
func subtract(r track.Range, taken []track.Range) (rest []track.Range) {
	first, _ := slices.BinarySearchFunc(taken, r.Start, func(t track.Range, at uint64) int {
		if t.End <= at {
			return -1
		}
		return 1
	})
	for _, t := range taken[first:] {
		if t.Start >= r.End {
			break
		}
		if r.Start < t.Start {
			rest = append(rest, track.Range{Start: r.Start, End: t.Start})
		}
		r.Start = max(r.Start, t.End)
	}
	if r.Start < r.End {
		rest = append(rest, r)
	}
	return rest
}

// connections answers socket(AF_NETLINK, type, NETLINK_NETFILTER).
func (d *Describer) connections() preload.Answer {
	if len(d.empty) == 0 {
		return preload.Answer{}
	}
	fd := d.empty[0]
	d.empty = d.empty[1:]
	return preload.Return(fd)
}

// listSeq is the sequence number of CRIU's netlink requests (CR_NLMSG_SEQ).
const listSeq = 24680

// EmptySocket is a socket that takes a netlink request for a list (netlink(7))
// and has the answer for it: the list is empty. The other end must stay open
// as long as it is used. CRIU asks twice for the connections in a container's
// network namespace, and each time the kernel looks through its table of those
// of all namespaces, which takes it 9 ms with 2^18 buckets.
func EmptySocket() (socket, end *os.File, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socket pair for connections: %w", err)
	}
	socket, end = os.NewFile(uintptr(pair[0]), "connections"), os.NewFile(uintptr(pair[1]), "connections")
	done := binary.NativeEndian.AppendUint32(nil, 20)
	done = binary.NativeEndian.AppendUint16(done, unix.NLMSG_DONE)
	done = binary.NativeEndian.AppendUint16(done, unix.NLM_F_MULTI)
	done = binary.NativeEndian.AppendUint32(done, listSeq)
	done = append(done, make([]byte, 8)...) // port, status
	if _, err := end.Write(done); err != nil {
		socket.Close()
		end.Close()
		return nil, nil, fmt.Errorf("answer for connections: %w", err)
	}
	return socket, end, nil
}
