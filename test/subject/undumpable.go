package main

import (
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// takeUndumpable takes something that CRIU has no way to carry: descriptors, or
// a process as its negative number.
func takeUndumpable(kind string) (fds []int, err error) {
	var fd int
	switch kind {
	case "io_uring":
		var params [120]byte // struct io_uring_params, io_uring_setup(2)
		r, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 4, uintptr(unsafe.Pointer(&params)), 0)
		if errno != 0 {
			return nil, fmt.Errorf("io_uring_setup: %w", errno)
		}
		fd = int(r)
	case "mptcp":
		fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_MPTCP)
	case "traced":
		cmd := exec.Command("/bin/sleep", "1000")
		cmd.SysProcAttr = &syscall.SysProcAttr{Ptrace: true}
		runtime.LockOSThread() // the tracer
		if err := cmd.Start(); err != nil {
			return nil, err
		}
		return []int{-cmd.Process.Pid}, nil
	case "stopped":
		cmd := exec.Command("/bin/sleep", "1000")
		if err := cmd.Start(); err != nil {
			return nil, err
		}
		return []int{-cmd.Process.Pid}, cmd.Process.Signal(unix.SIGSTOP)
	case "vsock":
		fd, err = unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM, 0)
	case "userfaultfd":
		r, _, errno := unix.Syscall(unix.SYS_USERFAULTFD, 1, 0, 0)
		if errno != 0 {
			return nil, fmt.Errorf("userfaultfd: %w", errno)
		}
		fd = int(r)
	default:
		return nil, fmt.Errorf("unknown kind %q", kind)
	}
	if err != nil {
		return nil, err
	}
	return []int{fd}, nil
}

func (s *subject) drop() error {
	var errs []error
	for _, fd := range s.stuck {
		if fd >= 0 {
			errs = append(errs, unix.Close(fd))
			continue
		}
		errs = append(errs, unix.Kill(-fd, unix.SIGKILL))
		_, err := unix.Wait4(-fd, nil, unix.WALL, nil)
		errs = append(errs, err)
	}
	s.stuck = nil
	return errors.Join(errs...)
}
