package main

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// channel checks a pair of descriptors of which one reads what the other
// writes. A word is always under way in it, also while the container moves.
func channel(r, w int) (func() error, error) {
	number := byte(0)
	return func() error {
		if err := receive(r, number); err != nil {
			return err
		}
		number++
		return send(w, number)
	}, send(w, number)
}

func word(number byte) string { return string([]byte{'a' + number%26, '\n'}) }

func send(w int, number byte) error {
	_, err := unix.Write(w, []byte(word(number)))
	return err
}

// receive waits for the word with that number.
func receive(r int, number byte) error {
	ready, err := unix.Poll([]unix.PollFd{{Fd: int32(r), Events: unix.POLLIN}}, 10_000)
	if err != nil || ready == 0 {
		return fmt.Errorf("word is lost: %v", err)
	}
	var got [8]byte
	n, err := unix.Read(r, got[:])
	if err == nil && string(got[:n]) != word(number) {
		err = fmt.Errorf("got %q, want %q", got[:n], word(number))
	}
	return err
}

func pipe() (func() error, error) {
	var fd [2]int
	if err := unix.Pipe2(fd[:], unix.O_CLOEXEC); err != nil {
		return nil, err
	}
	return channel(fd[0], fd[1])
}

func namedPipe() (func() error, error) {
	const path = "/tmp/fifo"
	if err := unix.Mkfifo(path, 0o600); err != nil {
		return nil, err
	}
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return channel(fd, fd)
}

func socketPair() (func() error, error) {
	fd, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return channel(fd[0], fd[1])
}

func unixConnection() (func() error, error) {
	return connection(unix.AF_UNIX, &unix.SockaddrUnix{Name: "/tmp/subject.sock"})
}

func tcpInside() (func() error, error) {
	return connection(unix.AF_INET, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
}

// connection is a connection of the subject to itself, with its listener.
func connection(family int, addr unix.Sockaddr) (func() error, error) {
	listener, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		err = unix.Bind(listener, addr)
	}
	if err == nil {
		err = unix.Listen(listener, 1)
	}
	if err != nil {
		return nil, err
	}
	if addr, err = unix.Getsockname(listener); err != nil {
		return nil, err
	}
	client, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		err = unix.Connect(client, addr)
	}
	if err != nil {
		return nil, err
	}
	server, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
	if err != nil {
		return nil, err
	}
	return channel(server, client)
}

// pseudoterminal passes words from the master to the slave. None is under way
// while the container moves: CRIU does not promise to carry those of a
// terminal.
func pseudoterminal() (func() error, error) {
	master, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	n, err := unix.IoctlGetInt(master, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		return nil, err
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	number := byte(0)
	return func() error {
		number++
		if err := send(master, number); err != nil {
			return err
		}
		return receive(int(slave.Fd()), number)
	}, nil
}
