package main

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"time"

	"golang.org/x/sys/unix"
)

// thing is something that is held across the move.
type thing struct {
	name  string
	check func() error
}

// takeAll takes one thing of each kind.
func takeAll() ([]thing, error) {
	var things []thing
	for _, kind := range []struct {
		name string
		take func() (func() error, error)
	}{
		{"deleted file", deletedFile}, {"private memory", privateMemory}, {"shared memory", sharedMemory},
		{"mapped file", mappedFile}, {"zeros over a file", zerosOverFile}, {"flock", flock}, {"ofd lock", ofdLock}, {"pipe", pipe}, {"named pipe", namedPipe},
		{"socket pair", socketPair}, {"unix connection", unixConnection}, {"tcp connection inside", tcpInside},
		{"udp socket", udp}, {"pseudoterminal", pseudoterminal}, {"eventfd", eventfd}, {"clock", clock},
		{"shell", shell},
	} {
		check, err := kind.take()
		if err != nil {
			return nil, fmt.Errorf("take %s: %w", kind.name, err)
		}
		things = append(things, thing{kind.name, check})
	}
	return things, nil
}

func deletedFile() (func() error, error) {
	want := []byte("still here\n")
	f, err := os.CreateTemp("/tmp", "deleted")
	if err == nil {
		_, err = f.Write(want)
	}
	if err == nil {
		err = os.Remove(f.Name())
	}
	return func() error {
		got := make([]byte, len(want))
		if _, err := f.ReadAt(got, 0); err != nil {
			return err
		}
		return same(got, want)
	}, err
}

func same(got, want []byte) error {
	if !bytes.Equal(got, want) {
		return fmt.Errorf("content has changed")
	}
	return nil
}

// memory fills b with noise and compares it later.
func memory(b []byte) (func() error, error) {
	_, err := rand.Read(b)
	want := bytes.Clone(b)
	return func() error { return same(b, want) }, err
}

func privateMemory() (func() error, error) { return memory(make([]byte, 4<<20)) }

func sharedMemory() (func() error, error) {
	b, err := unix.Mmap(-1, 0, 2<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, err
	}
	return memory(b)
}

// mappedFile writes to a file through a mapping only; it is compared with the
// file as read.
func mappedFile() (func() error, error) {
	const size = 1 << 20
	f, err := os.Create("/var/tmp/mapped")
	if err == nil {
		err = f.Truncate(size)
	}
	if err != nil {
		return nil, err
	}
	b, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	stop := time.Now().Add(24 * time.Hour)
	go func() { // goes on writing while the container moves
		for i := 0; time.Now().Before(stop); i++ {
			b[i%size]++
			time.Sleep(time.Millisecond)
		}
	}()
	_, err = rand.Read(b)
	return func() error {
		got, err := os.ReadFile(f.Name())
		if err != nil {
			return err
		}
		differing := 0
		for i := range got {
			if got[i] != b[i] {
				differing++
			}
		}
		if differing > 100 { // the writer went on between the two
			return fmt.Errorf("file and mapping differ in %d bytes", differing)
		}
		return nil
	}, err
}

// zerosOverFile has a page of zeros of its own in place of a file's.
func zerosOverFile() (func() error, error) {
	const size, own = 4 * page, page
	content := bytes.Repeat([]byte("file"), size/4)
	if err := os.WriteFile("/var/tmp/under", content, 0o600); err != nil {
		return nil, err
	}
	f, err := os.Open("/var/tmp/under")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE)
	if err != nil {
		return nil, err
	}
	clear(b[own : 2*own])
	want := bytes.Clone(content)
	clear(want[own : 2*own])
	return func() error { return same(b, want) }, nil
}

// flock holds a lock that another open of the file runs into.
func flock() (func() error, error) {
	f, err := os.Create("/tmp/flock")
	if err != nil {
		return nil, err
	}
	return func() error {
		other, err := os.Open(f.Name())
		if err != nil {
			return err
		}
		defer other.Close()
		return refused(unix.Flock(int(other.Fd()), unix.LOCK_EX|unix.LOCK_NB))
	}, unix.Flock(int(f.Fd()), unix.LOCK_EX)
}

func ofdLock() (func() error, error) {
	f, err := os.Create("/tmp/ofd")
	if err != nil {
		return nil, err
	}
	lock := unix.Flock_t{Type: unix.F_WRLCK}
	return func() error {
		other, err := os.OpenFile(f.Name(), os.O_RDWR, 0)
		if err != nil {
			return err
		}
		defer other.Close()
		lock := unix.Flock_t{Type: unix.F_WRLCK}
		return refused(unix.FcntlFlock(other.Fd(), unix.F_OFD_SETLK, &lock))
	}, unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &lock)
}

func refused(err error) error {
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil
	}
	return fmt.Errorf("lock is lost: second locker gets %v", err)
}

func eventfd() (func() error, error) {
	fd, err := unix.Eventfd(7, unix.EFD_NONBLOCK)
	return func() error {
		var b [8]byte
		if _, err := unix.Read(fd, b[:]); err != nil {
			return err
		}
		if b[0] != 7 {
			return fmt.Errorf("counter is %d", b[0])
		}
		_, err := unix.Write(fd, b[:])
		return err
	}, err
}

// clock sees that monotonic time goes on where it was.
func clock() (func() error, error) {
	last := time.Now()
	return func() error {
		d := time.Since(last)
		last = time.Now()
		if d < 0 || d > time.Hour {
			return fmt.Errorf("monotonic time has jumped by %v", d)
		}
		return nil
	}, nil
}

// shell runs a loop in the background that counts in a file.
func shell() (func() error, error) {
	const file = "/tmp/count"
	cmd := exec.Command("/bin/sh", "-c", "i=0; while :; do i=$((i+1)); echo $i >"+file+".new; mv "+file+".new "+file+"; sleep 0.05; done")
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	last := -1
	count := func() (n int) {
		text, _ := os.ReadFile(file)
		fmt.Sscan(string(text), &n)
		return n
	}
	return func() error {
		if n := count(); n < last {
			return fmt.Errorf("count went back from %d to %d", last, n)
		}
		before := count()
		for range 400 {
			if last = count(); last > before {
				return cmd.Process.Signal(unix.Signal(0))
			}
			time.Sleep(50 * time.Millisecond)
		}
		return fmt.Errorf("count stands at %d", before)
	}, nil
}

func udp() (func() error, error) {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	return func() error {
		if _, err := conn.WriteTo([]byte("x"), conn.LocalAddr()); err != nil {
			return err
		}
		if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			return err
		}
		_, _, err := conn.ReadFrom(make([]byte, 1))
		return err
	}, nil
}
