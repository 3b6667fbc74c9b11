// Package probe watches a container from outside: how long it does not answer,
// and what memory its hosts take meanwhile.
package probe

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// sendBuffer holds what is sent during the longest gap, each message with
	// up to a kilobyte that the kernel adds: the client never waits.
	sendBuffer = 64 << 20

	interval   = time.Millisecond
	messageLen = 8       // its number
	window     = 1 << 18 // messages under way at most, more than four minutes of them
)

// Seen is what a client of an echo server has met.
type Seen struct {
	Gap    time.Duration // longest time between two answers
	GapAt  time.Time     // its start
	MaxRTT time.Duration // longest time from a message to its answer
	Late   time.Duration // longest delay of the client itself, which may make up a part of Gap
	Sent   uint64
	Echoed uint64
}

// Echo sends one message a millisecond on one connection to an echo server,
// from a thread that real-time scheduling, where it is allowed, keeps from
// waiting for the machine's other work.
type Echo struct {
	file   int
	sent   [window]atomic.Int64 // when message n was sent, by CLOCK_MONOTONIC
	count  atomic.Uint64
	late   time.Duration
	stop   atomic.Bool
	failed atomic.Bool
	result chan error
	ended  chan struct{}

	gaps   gaps
	maxRTT time.Duration
	echoed atomic.Uint64
}

// Start takes over the connection, which has to be fresh.
func Start(conn net.Conn) (*Echo, error) {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return nil, fmt.Errorf("probe needs TCP, not %T", conn)
	}
	defer tcp.Close()
	fd, err := blockingCopy(tcp)
	if err != nil {
		return nil, err
	}
	e := &Echo{file: fd, result: make(chan error, 2), ended: make(chan struct{})}
	go func() { e.result <- e.broken(e.send()); close(e.ended) }()
	go func() { e.result <- e.broken(e.receive()) }()
	return e, nil
}

// blockingCopy is a descriptor of the connection on which a thread can wait.
func blockingCopy(conn *net.TCPConn) (fd int, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	var dupErr error
	if err := raw.Control(func(orig uintptr) {
		fd, dupErr = unix.FcntlInt(orig, unix.F_DUPFD_CLOEXEC, 3)
	}); err != nil {
		return 0, err
	}
	if dupErr != nil {
		return 0, dupErr
	}
	return fd, errors.Join(
		unix.SetNonblock(fd, false),
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, sendBuffer),
		boundRTO(fd),
	)
}

// maxRTO is the longest time between two retransmissions. The usual two minutes
// would let a gap of some seconds look up to twice as long: the container is
// asked again only then. Gaps below a second are as ever. The kernel would take
// a connection for dead earlier too, so userTimeout says when it is.
const (
	maxRTO      = time.Second
	userTimeout = 10 * time.Minute
)

// boundRTO needs Linux 6.15; on an older kernel it does nothing.
func boundRTO(fd int) error {
	const tcpRTOMaxMS = 44 // include/uapi/linux/tcp.h
	err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, tcpRTOMaxMS, int(maxRTO.Milliseconds()))
	if errors.Is(err, unix.ENOPROTOOPT) {
		return nil
	}
	return errors.Join(err, unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(userTimeout.Milliseconds())))
}

// CaughtUp waits until all that has been sent so far is answered. It says no
// where the connection broke, or that takes longer than the time given.
func (e *Echo) CaughtUp(within time.Duration) bool {
	target := e.count.Load()
	for end := time.Now().Add(within); e.echoed.Load() < target; time.Sleep(interval) {
		if e.failed.Load() || time.Now().After(end) {
			return false
		}
	}
	return true
}

// Stop ends the probe, lets what is under way arrive, and tells what it saw.
// An error is a connection that broke or answers that are wrong.
func (e *Echo) Stop() (Seen, error) {
	e.stop.Store(true)
	<-e.ended
	_ = unix.Shutdown(e.file, unix.SHUT_WR) // the server ends its side, which ends receive
	limit := time.AfterFunc(5*time.Second, func() { _ = unix.Shutdown(e.file, unix.SHUT_RDWR) })
	err := errors.Join(<-e.result, <-e.result)
	limit.Stop()
	_ = unix.Close(e.file)
	seen := Seen{
		Gap: e.gaps.longest, GapAt: e.gaps.wall(), MaxRTT: e.maxRTT, Late: e.late,
		Sent: e.count.Load(), Echoed: e.echoed.Load(),
	}
	if err == nil && seen.Echoed != seen.Sent {
		err = fmt.Errorf("%d of %d messages not answered", seen.Sent-seen.Echoed, seen.Sent)
	}
	return seen, err
}

// broken notes an error for those who wait for answers.
func (e *Echo) broken(err error) error {
	if err != nil {
		e.failed.Store(true)
	}
	return err
}

func (e *Echo) send() error {
	realTime()
	var message [messageLen]byte
	for due := monotonic(); !e.stop.Load(); due += interval {
		sleepUntil(due)
		n, at := e.count.Load(), monotonic()
		e.late = max(e.late, at-due)
		if at-due > interval { // no bursts
			due = at
		}
		binary.LittleEndian.PutUint64(message[:], n)
		e.sent[n%window].Store(int64(at))
		if _, err := unix.Write(e.file, message[:]); err != nil {
			return fmt.Errorf("send message %d: %w", n, err)
		}
		e.count.Add(1)
	}
	return nil
}

func (e *Echo) receive() error {
	realTime()
	buf := make([]byte, 64<<10)
	kept := 0
	for {
		n, err := unix.Read(e.file, buf[kept:])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("receive answer %d: %w", e.echoed.Load(), err)
		}
		if n == 0 {
			return nil
		}
		at := monotonic()
		used, err := e.answers(buf[:kept+n], at)
		if err != nil {
			return err
		}
		kept = copy(buf, buf[used:kept+n])
	}
}

// answers counts the whole answers in b and returns their length.
func (e *Echo) answers(b []byte, at time.Duration) (used int, err error) {
	for ; len(b)-used >= messageLen; used += messageLen {
		n := binary.LittleEndian.Uint64(b[used:])
		if due := e.echoed.Load(); n != due {
			return used, fmt.Errorf("answer %d where %d is due", n, due)
		}
		e.maxRTT = max(e.maxRTT, at-time.Duration(e.sent[n%window].Load()))
		e.echoed.Add(1)
		e.gaps.event(at)
	}
	return used, nil
}

func monotonic() time.Duration {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) // cannot fail
	return time.Duration(ts.Nano())
}

func sleepUntil(at time.Duration) {
	ts := unix.NsecToTimespec(int64(at))
	_ = unix.ClockNanosleep(unix.CLOCK_MONOTONIC, unix.TIMER_ABSTIME, &ts, nil) // woken early: early
}

// realTime gives this goroutine a thread of its own, which ends with it, and
// the lowest real-time priority if the kernel lets it.
func realTime() {
	runtime.LockOSThread()
	_ = unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 1}, 0)
}
