// Command hog is what the tests dump: a process with memory.
//
// Usage: hog READY PRIVATE SHARED [seccomp|many]. It has PRIVATE MiB of its own
// and SHARED MiB of shared memory, all written to, and makes the file READY
// when it has. "seccomp" gives it a filter that allows everything, "many"
// eight children. At SIGUSR1 it changes a flag of its memory, at SIGUSR2 it maps
// a file more; then READY is made again.
//
//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"syscall"
	"time"
	"unsafe"
)

func memory(arg string, flags int) (mem []byte) {
	size, err := strconv.Atoi(arg)
	if err != nil || size == 0 {
		return nil
	}
	mem, err = syscall.Mmap(-1, 0, size<<20, syscall.PROT_READ|syscall.PROT_WRITE, flags|syscall.MAP_ANON)
	if err != nil {
		panic(err)
	}
	_ = syscall.Madvise(mem, 15) // MADV_NOHUGEPAGE: as many pages as in a program that fills them slowly
	for i := 0; i < len(mem); i += 4096 {
		mem[i] = 1
	}
	return mem
}

func filter() {
	runtime.LockOSThread()
	const allow = 0x7fff0000
	insns := []struct {
		code   uint16
		jt, jf uint8
		k      uint32
	}{{code: 6, k: allow}}
	prog := struct {
		n     uint16
		insns unsafe.Pointer
	}{1, unsafe.Pointer(&insns[0])}
	if _, _, e := syscall.RawSyscall(syscall.SYS_PRCTL, 22, 2, uintptr(unsafe.Pointer(&prog))); e != 0 {
		panic(e)
	}
}

// enter makes the working directory the root, and lets go of all outside.
func enter() error {
	if err := errors.Join(syscall.PivotRoot(".", "."), syscall.Unmount(".", syscall.MNT_DETACH), os.Chdir("/")); err != nil {
		return err
	}
	null, err := syscall.Open("/null", syscall.O_RDWR, 0)
	for fd := 0; fd < 3 && err == nil; fd++ {
		err = syscall.Dup3(null, fd, 0)
	}
	return errors.Join(err, syscall.Close(null))
}

func main() {
	if os.Getpid() == 1 {
		if err := enter(); err != nil {
			panic(err)
		}
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR1, syscall.SIGUSR2)
	mem := memory(os.Args[2], syscall.MAP_PRIVATE)
	memory(os.Args[3], syscall.MAP_SHARED)
	for _, option := range os.Args[4:] {
		switch option {
		case "seccomp":
			filter()
		case "many":
			for i := range 8 {
				ready := fmt.Sprint(os.Args[1], i)
				cmd := exec.Command("/proc/self/exe", ready, "4", "0")
				cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
				if err := cmd.Start(); err != nil {
					panic(err)
				}
				for _, err := os.Stat(ready); err != nil; _, err = os.Stat(ready) {
					time.Sleep(time.Millisecond)
				}
			}
		}
	}
	for {
		if err := os.WriteFile(os.Args[1], nil, 0o600); err != nil {
			panic(err)
		}
		if <-signals == syscall.SIGUSR1 {
			_ = syscall.Madvise(mem, syscall.MADV_DONTFORK)
		} else {
			f, _ := os.Open("/null2")
			_, _ = syscall.Mmap(int(f.Fd()), 0, 4096, syscall.PROT_READ, syscall.MAP_PRIVATE)
		}
	}
}
