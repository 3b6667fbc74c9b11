package track

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// probe tries a tracker.
func probe(kind string) error {
	switch kind {
	case UffdWP:
		return probeUffd()
	case SoftDirty:
		return probeSoftDirty()
	}
	return nil
}

// probeUffd attaches to a process of another program, and then watches itself.
func probeUffd() error {
	if err := probeAttach(); err != nil {
		return err
	}
	fd, _, errno := unix.Syscall(unix.SYS_USERFAULTFD, unix.O_CLOEXEC|unix.O_NONBLOCK|uffdUserMode, 0, 0)
	if errno != 0 {
		return fmt.Errorf("make userfaultfd: %w", errno)
	}
	s := space{uffd: int(fd), maps: -1, mem: -1}
	defer s.close()
	if err := handshake(s.uffd); err != nil {
		return err
	}
	var err error
	if s.pagemap, err = unix.Open("/proc/self/pagemap", unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
		return fmt.Errorf("open own pagemap: %w", err)
	}
	for _, flag := range []int{unix.MAP_PRIVATE, unix.MAP_SHARED} {
		if err := s.probeWrite(flag); err != nil {
			return err
		}
	}
	return nil
}

// probeAttach gets the userfaultfd of a child.
func probeAttach() error {
	child := exec.Command(anyProgram)
	in, err := child.StdinPipe()
	if err != nil {
		return err
	}
	if err := child.Start(); err != nil {
		return fmt.Errorf("start a process to try it on: %w", err)
	}
	defer func() {
		in.Close()
		_ = child.Wait()
	}()
	s, err := openSpace(1, child.Process.Pid, child.Process.Pid)
	for try := 0; err == errGone && try < 100; try++ { // it is just starting
		time.Sleep(time.Millisecond)
		s, err = openSpace(1, child.Process.Pid, child.Process.Pid)
	}
	if err != nil {
		return err
	}
	defer s.close()
	return s.attach()
}

// probeWrite writes to one page of two and sees that it is found.
func (s *space) probeWrite(flag int) error {
	pages, err := unix.Mmap(-1, 0, 2*PageSize, unix.PROT_READ|unix.PROT_WRITE, flag|unix.MAP_ANONYMOUS)
	if err != nil {
		return fmt.Errorf("map memory: %w", err)
	}
	defer unix.Munmap(pages)
	pages[0], pages[PageSize] = 1, 1
	at := addressOf(pages)
	if err := s.register(at, at+2*PageSize); err != nil {
		return fmt.Errorf("register memory for write protection: %w", err)
	}
	scan := scanner{vec: make([]region, 2)}
	look := func() (found []region, err error) {
		q := query{flags: wpMatching | checkWPAsync, mask: isWritten, ret: isWritten}
		_, err = scan.scan(s.pagemap, q, at, at+2*PageSize, func(r []region) error {
			found = append(found, r...)
			return nil
		})
		return found, err
	}
	if _, err := look(); err != nil {
		return fmt.Errorf("scan page tables: %w", err)
	}
	pages[PageSize] = 2
	found, err := look()
	runtime.KeepAlive(pages)
	if err != nil || len(found) != 1 || found[0].start != at+PageSize {
		return fmt.Errorf("a written page was not found: %v, %w", found, err)
	}
	return nil
}

// probeSoftDirty watches a page of its own.
func probeSoftDirty() error {
	scan, err := newScanner()
	if err != nil {
		return err
	}
	fd, err := unix.Open("/proc/self/pagemap", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open own pagemap: %w", err)
	}
	defer unix.Close(fd)
	page, err := unix.Mmap(-1, 0, PageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return fmt.Errorf("map memory: %w", err)
	}
	defer unix.Munmap(page)
	dirty := func() (is bool) {
		q := query{mask: isSoftDirty, anyOf: isPresent, ret: isSoftDirty}
		_, err = scan.scan(fd, q, addressOf(page), addressOf(page)+PageSize, func([]region) error {
			is = true
			return nil
		})
		return is
	}
	page[0] = 1
	before := dirty()
	if err := os.WriteFile("/proc/self/clear_refs", []byte("4"), 0); err != nil {
		return fmt.Errorf("clear soft-dirty bits: %w", err)
	}
	if cleared := dirty(); err != nil || !before || cleared {
		return errors.Join(errors.New("kernel has no soft-dirty bits"), err)
	}
	return nil
}
