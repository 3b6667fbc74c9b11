package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// churn is what makes it hard to follow a process's memory: it is written,
// mapped, unmapped, moved and shared all the time, by threads and by processes
// that live for less than a millisecond. Each kind checks itself.
type churn struct {
	mu      sync.Mutex // held by check: nothing changes meanwhile
	pages   []byte     // a number and a version a page
	writes  uint64     // versions in all of pages together
	maps    [][]byte   // filled with their length
	shared  []byte     // counters that short-lived children advance
	forks   uint64
	failure atomic.Pointer[error]
}

const page = 4096

// startChurn begins all kinds. They go on for good.
func startChurn() (*churn, error) {
	c := &churn{}
	var err error
	if c.pages, err = mapAnonymous(16<<20, unix.MAP_PRIVATE); err != nil {
		return nil, err
	}
	if c.shared, err = mapAnonymous(1<<20, unix.MAP_SHARED); err != nil {
		return nil, err
	}
	for i := 0; i < len(c.pages); i += page {
		binary.NativeEndian.PutUint64(c.pages[i:], uint64(i))
	}
	for _, kind := range []func() error{c.write, c.write, c.remap, c.fork} {
		go c.forever(kind)
	}
	// A shell that forks and executes as fast as it can.
	return c, exec.Command("/bin/sh", "-c", "while :; do /bin/true; (:); sleep 0.002; done").Start()
}

func mapAnonymous(size, flags int) ([]byte, error) {
	return unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, flags|unix.MAP_ANONYMOUS)
}

func (c *churn) forever(kind func() error) {
	for {
		c.mu.Lock()
		err := kind()
		c.mu.Unlock()
		if err != nil {
			c.failure.CompareAndSwap(nil, &err)
			return
		}
		time.Sleep(200 * time.Microsecond)
	}
}

// write advances the versions of some pages.
func (c *churn) write() error {
	for range 16 {
		at := rand.IntN(len(c.pages)/page)*page + 8
		binary.NativeEndian.PutUint64(c.pages[at:], binary.NativeEndian.Uint64(c.pages[at:])+1)
		c.writes++
	}
	return nil
}

// remap maps memory and fills it, moves or thins out what it has, and lets
// the oldest go once there are many.
func (c *churn) remap() error {
	b, err := mapAnonymous((1+rand.IntN(64))*page, unix.MAP_PRIVATE)
	if err != nil {
		return err
	}
	fill(b, len(b))
	c.maps = append(c.maps, b)
	i := rand.IntN(len(c.maps))
	switch rand.IntN(3) {
	case 0:
		if c.maps[i], err = unix.Mremap(c.maps[i], len(c.maps[i])+page, unix.MREMAP_MAYMOVE); err == nil {
			fill(c.maps[i], len(c.maps[i]))
		}
	case 1:
		if err = unix.Madvise(c.maps[i], unix.MADV_DONTNEED); err == nil {
			fill(c.maps[i], page) // the rest is zero now
		}
	}
	if err == nil && len(c.maps) > 16 {
		err = unix.Munmap(c.maps[0])
		c.maps = c.maps[1:]
	}
	return err
}

// fill makes the first bytes of b, page by page, tell their place and b's length.
func fill(b []byte, bytes int) {
	for i := 0; i < bytes; i += page {
		binary.NativeEndian.PutUint64(b[i:], uint64(i)<<32|uint64(len(b)))
	}
}

// fork has a child advance a counter in shared memory, which takes what the
// kernel knows of its write along when it ends.
func (c *churn) fork() error {
	at := rand.IntN(len(c.shared)/page) * page
	pid := forkAdding(&c.shared[at])
	if pid < 0 {
		return fmt.Errorf("fork: %w", syscall.Errno(-pid))
	}
	c.forks++
	var status unix.WaitStatus
	if _, err := unix.Wait4(pid, &status, 0, nil); err != nil || status == 0 {
		return err
	}
	return fmt.Errorf("child %d: wait status %#x", pid, status)
}

// forkAdding forks; the child adds one to the byte at p and ends. It must not
// need anything of Go's runtime, whose other threads it lacks.
//
//go:norace
//go:nosplit
func forkAdding(p *byte) int {
	pid, _, errno := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 {
		return -int(errno)
	}
	if pid == 0 {
		*p++
		for {
			syscall.RawSyscall(syscall.SYS_EXIT_GROUP, 0, 0, 0)
		}
	}
	return int(pid)
}

// check compares everything with what was done to it.
func (c *churn) check() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.failure.Load(); err != nil {
		return *err
	}
	var versions, counts uint64
	var errs []error
	for i := 0; i < len(c.pages); i += page {
		if got := binary.NativeEndian.Uint64(c.pages[i:]); got != uint64(i) {
			errs = append(errs, fmt.Errorf("page %d says it is %d", i/page, got/page))
		}
		versions += binary.NativeEndian.Uint64(c.pages[i+8:])
	}
	for i := 0; i < len(c.shared); i += page {
		counts += uint64(c.shared[i])
	}
	if versions != c.writes {
		errs = append(errs, fmt.Errorf("%d writes left, of %d", versions, c.writes))
	}
	if counts%256 != c.forks%256 {
		errs = append(errs, fmt.Errorf("children counted %d, of %d", counts, c.forks))
	}
	for _, b := range c.maps {
		errs = append(errs, checkMap(b))
	}
	return errors.Join(errs...)
}

func checkMap(b []byte) error {
	for i := 0; i < len(b); i += page {
		got := binary.NativeEndian.Uint64(b[i:])
		if whole := uint64(i)<<32 | uint64(len(b)); got != whole && (got != 0 || i == 0) {
			return fmt.Errorf("mapping of %d pages has %#x at page %d", len(b)/page, got, i/page)
		}
	}
	return nil
}
