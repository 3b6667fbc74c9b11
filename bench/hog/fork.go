package hog

import (
	"fmt"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// family is the children and the board on which they and their parent talk: a
// page of shared memory with a place for each of them.
type family struct {
	memory memory
	board  *[maxChildren]place
	size   int
}

// place is what parent and child tell each other. The parent writes asked,
// the child the rest; answered comes last.
type place struct {
	asked, answered uint64
	pages, bad      uint64
	versions        uint64
	checked, done   uint64 // writes: until the check, until now
	_               uint64
}

// busyPart of a child's pages is written, one page every childPause; the rest
// stays shared with the parent and the other children.
const (
	busyPart   = 16
	childPause = 100 * time.Millisecond
)

// patience bounds the wait for a child's answer.
const patience = 10 * time.Second

// raise forks n children. They die with this process.
func raise(m memory, n int) (*family, error) {
	f := &family{memory: m, size: n}
	if n == 0 {
		return f, nil
	}
	raw, err := mapMemory(pageSize, unix.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	f.board = (*[maxChildren]place)(unsafe.Pointer(&raw[0]))
	failed := make(chan error)
	go f.forkAll(failed)
	return f, <-failed
}

// forkAll forks on a thread that stays for ever: the children die with it.
func (f *family) forkAll(failed chan<- error) {
	runtime.LockOSThread()
	for i := range f.size {
		if errno := fork(&f.board[i], &f.memory.raw[0], uintptr(f.memory.pages())); errno != 0 {
			failed <- fmt.Errorf("fork: %w", errno)
			return
		}
	}
	failed <- nil
	select {}
}

// fork makes a child of the calling thread, which must be locked. No signal is
// handled in the child, which has this thread alone and so no runtime.
//
//go:norace
func fork(p *place, first *byte, pages uintptr) syscall.Errno {
	all, old := ^uint64(0), uint64(0)
	unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_BLOCK, uintptr(unsafe.Pointer(&all)), uintptr(unsafe.Pointer(&old)), 8, 0, 0)
	_, errno := cloneChild(p, first, pages)
	unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&old)), 0, 8, 0, 0)
	return errno
}

// cloneChild returns in the parent only. Nothing in the child may need more
// stack than there is or meet the scheduler, neither of which works there.
//
//go:nosplit
//go:norace
//go:noinline
func cloneChild(p *place, first *byte, pages uintptr) (pid uintptr, errno syscall.Errno) {
	pid, _, errno = syscall.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 || pid != 0 {
		return pid, errno
	}
	child(p, first, pages)
	return 0, 0
}

// child never returns.
//
//go:nosplit
//go:norace
func child(p *place, first *byte, pages uintptr) {
	syscall.RawSyscall6(unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0, 0)
	pause := syscall.Timespec{Nsec: int64(childPause)}
	for next := uintptr(0); ; next = (next + 1) % ((pages + busyPart - 1) / busyPart) {
		page := (*[pageWords]uint64)(unsafe.Add(unsafe.Pointer(first), next*pageSize))
		renderRandom(page, uint64(next), page[1]+1)
		p.done++
		if asked := atomic.LoadUint64(&p.asked); asked != p.answered {
			p.pages, p.bad, p.versions, p.checked = uint64(pages), 0, 0, p.done
			for i := uintptr(0); i < pages; i++ {
				page := (*[pageWords]uint64)(unsafe.Add(unsafe.Pointer(first), i*pageSize))
				if !isRandom(page, uint64(i)) {
					p.bad++
				}
				p.versions += page[1]
			}
			atomic.StoreUint64(&p.answered, asked)
		}
		syscall.RawSyscall6(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&pause)), 0, 0, 0, 0, 0)
	}
}

// verify lets every child check its memory. One that does not answer counts
// as a process that was lost.
func (f *family) verify(r *Report) {
	for i := range f.size {
		atomic.AddUint64(&f.board[i].asked, 1)
	}
	end := time.Now().Add(patience)
	for i := range f.size {
		p := &f.board[i]
		for atomic.LoadUint64(&p.answered) != atomic.LoadUint64(&p.asked) && time.Now().Before(end) {
			sleep(tickEvery)
		}
		f.add(p, r)
	}
}

// add adds a child's answer to the report.
func (f *family) add(p *place, r *Report) {
	if atomic.LoadUint64(&p.answered) != atomic.LoadUint64(&p.asked) {
		r.Silent++
		return
	}
	r.Pages += p.pages
	r.Bad += p.bad
	r.Versions += p.versions
	r.Done += p.checked
}
