package pager

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/vzkit/vzkit/internal/inject"
)

// descriptors makes userfaultfds of stopped processes. Only a process itself
// can make its own (it is bound to who asks), and in a user namespace it may
// not: userfaultfd(2) wants a privilege of the host. But whoever has a
// descriptor of /dev/userfaultfd may, so the process is sent one over a unix
// socket, uses it, and forgets it all again.
type descriptors struct {
	device    *os.File
	listeners map[uint64]listener // by the inode of their network namespace
}

// listener is a socket with an abstract name, in the network namespace of those
// who are to connect to it.
type listener struct {
	fd   int
	name []byte // random, so that nobody else's is it
}

func newDescriptors() (*descriptors, error) {
	device, err := os.OpenFile("/dev/userfaultfd", os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("open userfaultfd: %w", err)
	}
	return &descriptors{device, map[uint64]listener{}}, nil
}

func (d *descriptors) close() {
	d.device.Close()
	for _, l := range d.listeners {
		_ = unix.Close(l.fd)
	}
}

// listener returns that of a process's network namespace.
func (d *descriptors) listener(pid int) (listener, error) {
	path := fmt.Sprintf("/proc/%d/ns/net", pid)
	var stat unix.Stat_t
	if err := unix.Stat(path, &stat); err != nil {
		return listener{}, fmt.Errorf("find network namespace: %w", err)
	}
	if l, ok := d.listeners[stat.Ino]; ok {
		return l, nil
	}
	type made struct {
		listener
		err error
	}
	result := make(chan made)
	go func() {
		runtime.LockOSThread() // for good: the thread ends here
		l, err := listenIn(path)
		result <- made{l, err}
	}()
	m := <-result
	if m.err == nil {
		d.listeners[stat.Ino] = m.listener
	}
	return m.listener, m.err
}

func listenIn(namespace string) (l listener, err error) {
	ns, err := os.Open(namespace)
	if err != nil {
		return l, fmt.Errorf("open network namespace: %w", err)
	}
	defer ns.Close()
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
		return l, fmt.Errorf("enter network namespace: %w", err)
	}
	l.name = append([]byte{0}, rand.Text()...)
	if l.fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
		return l, fmt.Errorf("make socket: %w", err)
	}
	err = unix.Bind(l.fd, &unix.SockaddrUnix{Name: "@" + string(l.name[1:])})
	if err == nil {
		err = unix.Listen(l.fd, 16)
	}
	if err != nil {
		_ = unix.Close(l.fd)
		return l, fmt.Errorf("listen: %w", err)
	}
	return l, nil
}

// of makes a userfaultfd of a task's process and returns it as ours.
func (d *descriptors) of(pid int, task *inject.Task) (fd int, err error) {
	const flags = unix.O_CLOEXEC | unix.O_NONBLOCK
	theirs, err := task.Syscall(unix.SYS_USERFAULTFD, flags)
	if errors.Is(err, inject.ErrGone) {
		return -1, err
	}
	if err != nil {
		if theirs, err = d.byDevice(pid, task, flags); err != nil {
			return -1, err
		}
	}
	fd, err = take(pid, int(theirs))
	if _, closed := task.Syscall(unix.SYS_CLOSE, theirs); closed != nil && err == nil {
		err = errors.Join(closed, unix.Close(fd))
	}
	if err != nil {
		return -1, fmt.Errorf("make userfaultfd of process %d: %w", pid, err)
	}
	return fd, begin(fd)
}

// take copies a descriptor out of a process.
func take(pid, theirs int) (int, error) {
	process, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(process)
	return unix.PidfdGetfd(process, theirs, 0)
}

// byDevice has the task make its userfaultfd from a descriptor of ours.
func (d *descriptors) byDevice(pid int, task *inject.Task, flags uintptr) (theirs uintptr, err error) {
	l, err := d.listener(pid)
	if err != nil {
		return 0, err
	}
	err = task.Scratch(func(room uintptr) error {
		device, err := d.send(pid, task, l, room)
		if err != nil {
			return err
		}
		theirs, err = task.Syscall(unix.SYS_IOCTL, device, ioNew, flags)
		_, closed := task.Syscall(unix.SYS_CLOSE, device)
		return errors.Join(err, closed)
	})
	if err != nil {
		return 0, fmt.Errorf("send userfaultfd device to process %d: %w", pid, err)
	}
	return theirs, nil
}

// send has the task connect to the listener and receive the device.
func (d *descriptors) send(pid int, task *inject.Task, l listener, room uintptr) (device uintptr, err error) {
	socket, err := task.Syscall(unix.SYS_SOCKET, unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("socket: %w", err)
	}
	defer func() {
		if _, closed := task.Syscall(unix.SYS_CLOSE, socket); closed != nil {
			err = errors.Join(err, closed)
		}
	}()
	address := binary.NativeEndian.AppendUint16(nil, unix.AF_UNIX)
	address = append(address, l.name...)
	if err := task.Write(room, address); err != nil {
		return 0, err
	}
	if _, err := task.Syscall(unix.SYS_CONNECT, socket, room, uintptr(len(address))); err != nil {
		return 0, fmt.Errorf("connect: %w", err)
	}
	if err := l.give(pid, int(d.device.Fd())); err != nil {
		return 0, err
	}
	return receive(task, socket, room)
}

// give accepts the process's connection, and nobody else's, and sends it fd.
func (l listener) give(pid, fd int) error {
	for {
		conn, _, err := unix.Accept4(l.fd, unix.SOCK_CLOEXEC)
		if err != nil {
			return fmt.Errorf("accept: %w", err)
		}
		peer, err := unix.GetsockoptUcred(conn, unix.SOL_SOCKET, unix.SO_PEERCRED)
		if err == nil && int(peer.Pid) == pid {
			err = unix.Sendmsg(conn, []byte{0}, unix.UnixRights(fd), nil, 0)
			_ = unix.Close(conn)
			return err
		}
		_ = unix.Close(conn)
	}
}

// receive has the task take a descriptor from its socket. The room holds a
// struct msghdr, a struct iovec, the byte it points to, and the control data.
func receive(task *inject.Task, socket, room uintptr) (uintptr, error) {
	const vector, data, control, controlSize, size = 64, 80, 96, 24, 128
	b := make([]byte, size)
	put := func(at int, value uintptr) { binary.NativeEndian.PutUint64(b[at:], uint64(value)) }
	put(16, room+vector) // msg_iov
	put(24, 1)           // msg_iovlen
	put(32, room+control)
	put(40, controlSize)
	put(vector, room+data)
	put(vector+8, 1)
	if err := task.Write(room, b); err != nil {
		return 0, err
	}
	if _, err := task.Syscall(unix.SYS_RECVMSG, socket, room, unix.MSG_CMSG_CLOEXEC|unix.MSG_DONTWAIT); err != nil {
		return 0, fmt.Errorf("recvmsg: %w", err)
	}
	if err := task.Read(room, b); err != nil {
		return 0, err
	}
	fd, err := oneRight(b[control : control+controlSize])
	return uintptr(fd), err
}
