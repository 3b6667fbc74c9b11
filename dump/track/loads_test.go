package track_test

import (
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// loads are what the hostile container does all the time.
var loads = map[string]func(s *steps){
	"init": func(*steps) {
		ready()
		for {
			if _, err := unix.Wait4(-1, nil, 0, nil); err != nil {
				time.Sleep(time.Millisecond)
			}
		}
	},
	"writer": func(s *steps) {
		b := mmap(64<<20, rw, private, -1)
		s.fill(b)
		ready()
		for i := 0; ; i++ {
			at := s.rand.IntN(len(b)/8) * 8
			*(*uint64)(unsafe.Pointer(&b[at])) = s.rand.Uint64()
			if i%64 == 0 {
				time.Sleep(100 * time.Microsecond)
			}
		}
	},
	"mappings": func(s *steps) {
		ready()
		var all [][]byte
		for {
			if len(all) < 40 && s.rand.IntN(2) == 0 {
				b := mmap((1+s.rand.IntN(300))*page, rw, []int{private, private, sharedMap}[s.rand.IntN(3)], -1)
				s.fill(b)
				all = append(all, b)
			} else if len(all) > 0 {
				s.disturb(&all, s.rand.IntN(len(all)))
			}
			time.Sleep(200 * time.Microsecond)
		}
	},
	"threads": func(s *steps) {
		b := mmap(256*page, rw, private, -1)
		ready()
		for {
			done := make(chan bool)
			for i := range 8 {
				go func() {
					runtime.LockOSThread() // the thread ends with it
					s := steps{rand: rand.New(rand.NewPCG(uint64(i), uint64(time.Now().UnixNano())))}
					s.fill(b[i*32*page : (i+1)*32*page])
					done <- true
				}()
			}
			for range 8 {
				<-done
			}
			time.Sleep(time.Millisecond)
		}
	},
	"forks": func(s *steps) {
		b := mmap(64*page, rw, sharedMap, -1)
		own := mmap(64*page, rw, private, -1)
		s.fill(own)
		ready()
		for {
			forked(b[s.rand.IntN(64)*page:], s.rand.Uint64(), 0)
			forked(own[s.rand.IntN(64)*page:], s.rand.Uint64(), 0)
			s.fill(own[:page])
			time.Sleep(time.Millisecond)
		}
	},
	"execs": func(*steps) { // by vfork
		must(os.Setenv(asSubject, "exec"))
		ready()
		for {
			_ = exec.Command("/proc/self/exe").Run()
		}
	},
}

// disturb does something to one of several mappings.
func (s *steps) disturb(all *[][]byte, i int) {
	b := (*all)[i]
	part := b[:(1+s.rand.IntN(len(b)/page))*page]
	switch s.rand.IntN(6) {
	case 0, 1:
		call(unix.SYS_MUNMAP, address(b), uintptr(len(b)))
		(*all)[i] = (*all)[len(*all)-1]
		*all = (*all)[:len(*all)-1]
	case 2:
		must(unix.Madvise(part, unix.MADV_DONTNEED))
	case 3:
		s.fill(part)
	case 4:
		must(unix.Mprotect(part, unix.PROT_READ))
		must(unix.Mprotect(part, rw))
		s.fill(part)
	case 5:
		at, _, errno := unix.Syscall6(unix.SYS_MREMAP, address(b), uintptr(len(b)), uintptr(len(b)+page), unix.MREMAP_MAYMOVE, 0, 0)
		if errno == unix.EFAULT { // it has become two, of which one is not registered yet
			return
		}
		(*all)[i] = unsafe.Slice((*byte)(*(*unsafe.Pointer)(unsafe.Pointer(&at))), len(b)) // what is beyond was not there
	}
}
