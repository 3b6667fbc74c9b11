package inject_test

import (
	"encoding/binary"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

const (
	asVictim    = "INJECT_TEST_AS_VICTIM"
	counterFile = "INJECT_TEST_COUNTER"
)

func TestMain(m *testing.M) {
	if mode := os.Getenv(asVictim); mode != "" {
		runtime.LockOSThread() // TestMain runs on the first thread
		counter, err := mapFile(os.Getenv(counterFile))
		if err == nil {
			err = be(mode, counter)
		}
		fmt.Fprintf(os.Stderr, "%s: %v\n", mode, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func mapFile(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return unix.Mmap(int(f.Fd()), 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
}

// be does one thing for ever and counts; it returns when that goes wrong.
func be(mode string, counter []byte) error {
	step, err := steps(mode)
	if err != nil {
		return err
	}
	for n := uint64(1); ; n++ {
		if err := step(); err != nil {
			return fmt.Errorf("step %d: %w", n, err)
		}
		binary.NativeEndian.PutUint64(counter, n)
	}
}

func steps(mode string) (func() error, error) {
	switch mode {
	case "sleep":
		return sleep, nil
	case "read":
		return read, nil
	case "futex":
		return futex, nil
	case "epoll":
		return epoll()
	case "poll":
		return poll, nil
	case "busy":
		return busy, nil
	case "threads":
		for range 4 {
			go func() {
				runtime.LockOSThread()
				for busy() == nil {
				}
			}()
		}
		return busy, nil
	case "signals":
		signals := make(chan os.Signal, 1)
		signal.Notify(signals, unix.SIGUSR1)
		go func() { // the test waits for a first move
			time.Sleep(10 * time.Millisecond)
			_ = unix.Kill(os.Getpid(), unix.SIGUSR1)
			for range time.Tick(200 * time.Millisecond) { // and for a last
				_ = unix.Kill(os.Getpid(), unix.SIGUSR1)
			}
		}()
		return func() error { <-signals; return nil }, nil
	case "seccomp":
		return seccomp()
	}
	return nil, fmt.Errorf("mode %q", mode)
}

func sleep() error {
	begin := time.Now()
	length := unix.Timespec{Nsec: 2e6}
	_, _, errno := unix.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&length)), 0, 0)
	if errno != 0 {
		return errno
	}
	if time.Since(begin) < 2*time.Millisecond {
		return fmt.Errorf("a sleep of %v", time.Since(begin))
	}
	return nil
}

func read() error {
	var b [1]byte
	n, _, errno := unix.RawSyscall(unix.SYS_READ, 0, uintptr(unsafe.Pointer(&b)), 1)
	if errno != 0 || n != 1 || b[0] != 1 {
		return fmt.Errorf("read %d bytes, %d: %w", n, b[0], errno)
	}
	return nil
}

func futex() error {
	var word uint32
	length := unix.Timespec{Nsec: 2e6}
	_, _, errno := unix.RawSyscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(&word)), 0, 0, uintptr(unsafe.Pointer(&length)), 0, 0)
	if errno != unix.ETIMEDOUT {
		return fmt.Errorf("futex: %w", errno)
	}
	return nil
}

func poll() error {
	fd := unix.PollFd{Fd: 0, Events: unix.POLLIN}
	n, _, errno := unix.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&fd)), 1, 0, 0, 0, 0)
	if errno != 0 || n != 1 {
		return fmt.Errorf("poll: %d, %w", n, errno)
	}
	return read()
}

func epoll() (func() error, error) {
	fd, err := unix.EpollCreate1(0)
	if err != nil {
		return nil, err
	}
	event := unix.EpollEvent{Events: unix.EPOLLIN}
	if err := unix.EpollCtl(fd, unix.EPOLL_CTL_ADD, 0, &event); err != nil {
		return nil, err
	}
	return func() error {
		var got unix.EpollEvent
		forever := -1
		n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(fd), uintptr(unsafe.Pointer(&got)), 1, uintptr(forever), 0, 0)
		if errno != 0 || n != 1 {
			return fmt.Errorf("epoll: %d, %w", n, errno)
		}
		return read()
	}, nil
}

// busy computes with many registers.
func busy() error {
	if sum := compute(); sum != expected {
		return fmt.Errorf("computed %v, want %v", sum, expected)
	}
	return nil
}

var expected = compute()

func compute() [2]uint64 {
	a, b, c, d := uint64(1), uint64(2), uint64(3), uint64(4)
	x := 1.5
	for n := range uint64(10000) {
		a, b, c, d = b+n, c^a, d*3+b, a+c
		x = x*1.0000001 + 1
	}
	return [2]uint64{a ^ b ^ c ^ d, uint64(x)}
}

// seccomp forbids itself getppid, with ENOTTY.
func seccomp() (func() error, error) {
	code, err := bpf.Assemble([]bpf.Instruction{
		bpf.LoadAbsolute{Off: 0, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.SYS_GETPPID, SkipTrue: 1},
		bpf.RetConstant{Val: 0x00050000 | uint32(unix.ENOTTY)}, // SECCOMP_RET_ERRNO
		bpf.RetConstant{Val: 0x7fff0000},                       // SECCOMP_RET_ALLOW
	})
	if err != nil {
		return nil, err
	}
	program := unix.SockFprog{Len: uint16(len(code)), Filter: (*unix.SockFilter)(unsafe.Pointer(&code[0]))}
	_, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, 1, 0, uintptr(unsafe.Pointer(&program)))
	if errno != 0 {
		return nil, errno
	}
	return func() error {
		if _, _, errno := unix.RawSyscall(unix.SYS_GETPPID, 0, 0, 0); errno != unix.ENOTTY {
			return fmt.Errorf("getppid: %w", errno)
		}
		return busy()
	}, nil
}
