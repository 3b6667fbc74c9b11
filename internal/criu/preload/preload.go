// Package preload answers a few system calls of a program in its place.
//
// The program runs with a small shared library, which the dynamic linker loads
// before the C library (LD_PRELOAD, ld.so(8)). It takes the place of three
// functions and looks at each call:
//
//	ioctl(fd, PAGEMAP_SCAN, …)
//	lseek(fd, offset, SEEK_DATA)
//	socket(AF_NETLINK, type, NETLINK_NETFILTER)
//
// Any other goes to the kernel. One of these is first put to the other end of
// a socket that the program has at descriptor FD, which is this process (see
// Server): it gives the result, or has the call made as ever. The call is made
// as ever, too, if nobody answers.
//
// A seccomp filter with user notification (seccomp_unotify(2)) could do the
// same without a library. But a tracer that has a seccomp filter may neither
// suspend nor read those of its tracees (kernel/ptrace.c, PTRACE_O_SUSPEND_SECCOMP;
// kernel/seccomp.c, PTRACE_SECCOMP_GET_FILTER), and so CRIU could not dump
// a container one of whose processes has one.
//
// The library is not compiled from C: its code is that of functions in
// assembly here, its tables are written by this package. Messages on the
// socket (AF_UNIX, SOCK_SEQPACKET) are words of the machine:
//
//	to the server  number of the system call, its first three arguments
//	from it        0, 0 for "make it"; 1 and the result; 2 and the errno
package preload

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// FD is where the library expects the socket. The program's own descriptors
// are far from it: low ones, and CRIU's service descriptors near the limit.
const FD = 100

// WriteFile writes the library to path.
func WriteFile(path string) error {
	if err := os.WriteFile(path, library(), 0o700); err != nil {
		return fmt.Errorf("write preload library: %w", err)
	}
	return nil
}

// Call is a system call that the program is about to make.
type Call struct {
	PID    int // of the program, or of a process it forked
	Number uint64
	Args   [3]uint64
}

// Answer is what comes of a call. The zero answer has the call made.
type Answer struct {
	kind, value uint64
}

const (
	kindReturn = 1
	kindErrno  = 2
)

// Return answers that the call succeeds with a result.
func Return(result int) Answer { return Answer{kindReturn, uint64(result)} }

// Errno answers that the call fails.
func Errno(e unix.Errno) Answer { return Answer{kindErrno, uint64(e)} }

// Server answers the calls of one program.
type Server struct {
	// Theirs is to be the program's FD. Close it once the program has it.
	Theirs *os.File
	ours   int
	done   chan struct{}
}

// Serve has answer called for each call, one at a time, always by the same
// thread.
func Serve(answer func(Call) Answer) (*Server, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socket pair for calls: %w", err)
	}
	s := &Server{Theirs: os.NewFile(uintptr(pair[1]), "calls"), ours: pair[0], done: make(chan struct{})}
	if err := unix.SetsockoptInt(s.ours, unix.SOL_SOCKET, unix.SO_PASSCRED, 1); err != nil {
		s.Theirs.Close()
		_ = unix.Close(s.ours)
		return nil, fmt.Errorf("ask for credentials: %w", err)
	}
	go s.serve(answer)
	return s, nil
}

// Close ends the service; the program's calls are all made from now on.
func (s *Server) Close() {
	s.Theirs.Close()
	_ = unix.Shutdown(s.ours, unix.SHUT_RDWR)
	<-s.done
}

// serve blocks in the kernel and not in Go's poller, which would add a thread
// switch to each of some hundred calls.
func (s *Server) serve(answer func(Call) Answer) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer close(s.done)
	defer unix.Close(s.ours)
	for {
		call, err := s.next()
		if err != nil {
			return
		}
		a := answer(call)
		reply := binary.NativeEndian.AppendUint64(nil, a.kind)
		if _, err := unix.Write(s.ours, binary.NativeEndian.AppendUint64(reply, a.value)); err != nil {
			return
		}
	}
}

func (s *Server) next() (Call, error) {
	var message [32]byte
	var control [64]byte
	n, cn, _, _, err := unix.Recvmsg(s.ours, message[:], control[:], 0)
	if errors.Is(err, unix.EINTR) {
		return s.next()
	}
	if err != nil {
		return Call{}, err
	}
	if n != len(message) {
		return Call{}, fmt.Errorf("message of %d bytes", n)
	}
	c := Call{Number: binary.NativeEndian.Uint64(message[:])}
	for i := range c.Args {
		c.Args[i] = binary.NativeEndian.Uint64(message[8*(i+1):])
	}
	c.PID, err = sender(control[:cn])
	return c, err
}

func sender(control []byte) (pid int, err error) {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil || len(messages) != 1 {
		return 0, fmt.Errorf("credentials of sender: %d messages, %v", len(messages), err)
	}
	cred, err := unix.ParseUnixCredentials(&messages[0])
	if err != nil {
		return 0, fmt.Errorf("credentials of sender: %w", err)
	}
	return int(cred.Pid), nil
}
