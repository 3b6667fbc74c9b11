package track

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// space is the memory of a process: one mm of the kernel. The descriptors were
// opened while the process had it and stay bound to it: once the process has
// exited or executed another program, they read as empty.
type space struct {
	id    uint64
	tasks []task // processes that have it: one, or more after vfork

	maps, pagemap, mem int
	uffd               int  // -1: its mappings are not registered
	late               bool // not attached yet: try again

	tokenAt uint64 // AT_RANDOM: 16 random bytes, new with each program

	have   pageSet   // pages passed on with content
	sums   *sumTable // of these pages, if it is tracked by them
	soft   bool      // tracked by soft-dirty bits
	unsure bool      // dirty bits were lost: everything may have changed
	vmas   []vma     // its mappings, while it is frozen
	ours   []span    // registered private mappings, joined, of the last round
	common []span    // and of shared memory
	busy   []span    // mappings that belong to somebody else's userfaultfd
}

// task is a process that has a space.
type task struct {
	pid   int
	tid   int   // a thread that is alive; not the leader, if that has ended
	pids  []int // in all its pid namespaces, the innermost last
	pidfd int
}

// liveThread finds a thread of a process that has memory: the leader, if it has
// not ended. 0 if there is none.
func liveThread(pid int) int {
	if hasMemory(pid) {
		return pid
	}
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return 0
	}
	for _, e := range entries {
		var tid int
		if _, err := fmt.Sscan(e.Name(), &tid); err == nil && hasMemory(tid) {
			return tid
		}
	}
	return 0
}

// hasMemory: the kernel looks for the memory before it looks at the address.
func hasMemory(tid int) bool {
	var b [1]byte
	_, err := readMemory(tid, PageSize, b[:])
	return err != unix.ESRCH
}

// readMemory is process_vm_readv(2) of one piece.
func readMemory(tid int, at uint64, b []byte) (int, error) {
	local := []unix.Iovec{{Base: &b[0], Len: uint64(len(b))}}
	return unix.ProcessVMReadv(tid, local, []unix.RemoteIovec{{Base: uintptr(at), Len: len(b)}}, 0)
}

// errGone: the process has ended, or executes another program just now.
var errGone = errors.New("process has no such memory any more")

// openSpace opens the memory of a thread's process.
func openSpace(id uint64, pid, tid int) (*space, error) {
	s := &space{id: id, maps: -1, pagemap: -1, mem: -1, uffd: -1}
	err := s.open(tid)
	if err == nil {
		err = s.join(pid, tid)
	}
	if err == nil && !s.is(&s.tasks[0]) {
		err = errGone
	}
	if err != nil {
		s.close()
		return nil, gone(fmt.Errorf("open memory of process %d: %w", pid, err))
	}
	return s, nil
}

// gone makes the errors of a process that is not there any more one.
func gone(err error) error {
	if errors.Is(err, errGone) || errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return errGone
	}
	return err
}

// open opens what shows the memory. The first descriptor is the one that is
// looked at later to see that all have the same.
func (s *space) open(tid int) (err error) {
	for _, f := range []struct {
		fd   *int
		name string
	}{{&s.mem, "mem"}, {&s.pagemap, "pagemap"}, {&s.maps, "maps"}} {
		if *f.fd, err = unix.Open(fmt.Sprintf("/proc/%d/%s", tid, f.name), unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
			return err
		}
	}
	return s.readToken(tid)
}

// readToken finds the random bytes by which programs are told apart. Without
// them, mappings are compared. A program that is just starting has no auxiliary
// vector yet.
func (s *space) readToken(tid int) error {
	const atRandom = 25
	auxv, err := os.ReadFile(fmt.Sprintf("/proc/%d/auxv", tid))
	if err != nil {
		return err
	}
	if len(auxv) < 16 {
		return errGone
	}
	for ; len(auxv) >= 16; auxv = auxv[16:] {
		if binary.NativeEndian.Uint64(auxv) == atRandom {
			s.tokenAt = binary.NativeEndian.Uint64(auxv[8:])
		}
	}
	return nil
}

// alive tells whether anybody has this memory: what nobody has reads as empty.
func (s *space) alive() bool {
	var b [1]byte
	n, err := unix.Pread(s.mem, b[:], int64(s.tokenAt))
	return n > 0 || err != nil
}

// is tells whether a process still has this memory.
func (s *space) is(t *task) bool {
	if unix.PidfdSendSignal(t.pidfd, 0, nil, 0) != nil || !s.alive() {
		return false
	}
	if !hasMemory(t.tid) {
		if t.tid = liveThread(t.pid); t.tid == 0 {
			return false
		}
	}
	return s.isOf(t.tid)
}

// isOf tells whether a thread has this memory.
func (s *space) isOf(tid int) bool {
	var bound, now [16]byte
	for range 3 { // a program may write there, too
		n, err := unix.Pread(s.mem, bound[:], int64(s.tokenAt))
		if err != nil || n != len(bound) {
			return s.sameMaps(tid)
		}
		if n, err = readMemory(tid, s.tokenAt, now[:]); err == nil && n == len(now) && bound == now {
			return true
		}
	}
	return false
}

func (s *space) sameMaps(tid int) bool {
	bound, err := readAll(s.maps, nil)
	if err != nil {
		return false
	}
	now, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", tid))
	return err == nil && len(now) > 0 && string(now) == string(bound)
}

// share tells whether a thread has this memory (kcmp(2)).
func (s *space) share(tid int) bool {
	const kcmpVM = 1
	order, _, errno := unix.Syscall6(unix.SYS_KCMP, uintptr(tid), uintptr(s.tasks[0].tid), kcmpVM, 0, 0, 0)
	return errno == 0 && order == 0
}

// join adds a process that has this memory, too.
func (s *space) join(pid, tid int) error {
	pids, err := pidsOf(pid)
	if err != nil {
		return err
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return err
	}
	s.tasks = append(s.tasks, task{pid: pid, tid: tid, pids: pids, pidfd: fd})
	return nil
}

// leave drops the processes that no longer have this memory.
func (s *space) leave(still func(*task) bool) {
	kept := s.tasks[:0]
	for i := range s.tasks {
		if still(&s.tasks[i]) {
			kept = append(kept, s.tasks[i])
		} else {
			unix.Close(s.tasks[i].pidfd)
		}
	}
	s.tasks = kept
}

// close lets go of the memory. Without the userfaultfd the kernel takes the
// write protection off.
func (s *space) close() {
	s.leave(func(*task) bool { return false })
	for _, fd := range []*int{&s.uffd, &s.maps, &s.pagemap, &s.mem} {
		if *fd >= 0 {
			unix.Close(*fd)
			*fd = -1
		}
	}
}

// userfaultfd(2), Linux include/uapi/linux/userfaultfd.h.
const (
	uffdAPI        = 0xaa
	uffdUserMode   = 1 // UFFD_USER_MODE_ONLY
	uffdioAPI      = 0xc018aa3f
	uffdioRegister = 0xc020aa00
	registerModeWP = 2

	featureWPHugeShmem   = 1 << 12 // UFFD_FEATURE_WP_HUGETLBFS_SHMEM
	featureWPUnpopulated = 1 << 13
	featureWPAsync       = 1 << 15
)

// handshake asks a new userfaultfd for what is needed.
func handshake(fd int) error {
	arg := struct{ api, features, ioctls uint64 }{uffdAPI, featureWPHugeShmem | featureWPUnpopulated | featureWPAsync, 0}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uffdioAPI, uintptr(unsafe.Pointer(&arg))); errno != 0 {
		return fmt.Errorf("ask userfaultfd for asynchronous write protection: %w", errno)
	}
	return nil
}

// owns tells whether all of a mapping was registered in the last round, and as
// what it is now: mappings may be replaced while they are looked at, and what
// was written to shared memory is not noted as what was written to a process's.
func (s *space) owns(v *vma) bool {
	all := s.ours
	if v.class == shared {
		all = s.common
	}
	i, found := slices.BinarySearchFunc(all, v.start, func(o span, at uint64) int { return cmp.Compare(o.start, at) })
	if !found {
		i--
	}
	return i >= 0 && all[i].start <= v.start && v.end <= all[i].end
}

// join adds a span after the others.
func join(all []span, start, end uint64) []span {
	if n := len(all); n > 0 && all[n-1].end == start {
		all[n-1].end = end
		return all
	}
	return append(all, span{start, end})
}

// registerAll makes the kernel note writes to a mapping, and to the gaps around
// it: if it has grown since it was looked at, or there is a larger one by now,
// registering a part would split it, and the process would find that it cannot
// move it any more.
func (s *space) registerAll(v *vma) error {
	err := s.register(v.low, v.high)
	if err == unix.EINVAL || err == unix.EBUSY { // something else is there now
		err = s.register(v.start, v.end)
	}
	return err
}

// register makes the kernel note writes to [start, end).
func (s *space) register(start, end uint64) error {
	arg := struct{ start, len, mode, ioctls uint64 }{start, end - start, registerModeWP, 0}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(s.uffd), uffdioRegister, uintptr(unsafe.Pointer(&arg))); errno != 0 {
		return errno
	}
	return nil
}
