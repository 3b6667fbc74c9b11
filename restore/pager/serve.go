package pager

import (
	"fmt"
	"runtime"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// servers is how many threads wait for faults.
const servers = 2

// server waits for the messages of all userfaultfds.
type server struct {
	epoll, stop int
	ended       chan error
	running     atomic.Int32
}

func newServer() (*server, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make epoll: %w", err)
	}
	stop, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		_ = unix.Close(epoll)
		return nil, fmt.Errorf("make eventfd: %w", err)
	}
	s := &server{epoll: epoll, stop: stop, ended: make(chan error, servers)}
	event := unix.EpollEvent{Events: unix.EPOLLIN, Fd: stopIndex}
	if err := unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, stop, &event); err != nil {
		s.close()
		return nil, fmt.Errorf("watch eventfd: %w", err)
	}
	return s, nil
}

// stopIndex is not a process's index.
const stopIndex = -1

// watch has the process of that index served.
func (s *server) watch(fd, index int) error {
	event := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET&0xffffffff, Fd: int32(index)}
	if err := unix.EpollCtl(s.epoll, unix.EPOLL_CTL_ADD, fd, &event); err != nil {
		return fmt.Errorf("watch userfaultfd: %w", err)
	}
	return nil
}

// start serves with the function that serves one process.
func (s *server) start(serve func(index int)) {
	for range servers {
		s.running.Add(1)
		go func() { s.ended <- s.run(serve) }()
	}
}

func (s *server) run(serve func(index int)) error {
	setNice(serveNice)
	events := make([]unix.EpollEvent, 8)
	for {
		n, err := unix.EpollWait(s.epoll, events, -1)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("wait for faults: %w", err)
		}
		for _, event := range events[:n] {
			if event.Fd == stopIndex {
				return nil
			}
			serve(int(event.Fd))
		}
	}
}

// close ends the serving and returns the first error of it.
func (s *server) close() (err error) {
	_, _ = unix.Write(s.stop, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	for range s.running.Load() {
		if e := <-s.ended; e != nil && err == nil {
			err = e
		}
	}
	_ = unix.Close(s.epoll)
	_ = unix.Close(s.stop)
	return err
}

// The container waits for what serves faults, and runs beside what fills in.
const (
	serveNice = -10
	fillNice  = 10
)

// setNice gives the caller a thread of its own with that nice value
// (setpriority(2)), which ends with it.
func setNice(nice int) {
	runtime.LockOSThread() // never unlocked
	_ = unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), nice)
}
