package track_test

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// asSubject makes the test binary a process to be tracked.
const asSubject = "TRACK_TEST_SUBJECT"

// The first goroutine stays on the leader.
func init() { runtime.LockOSThread() }

func TestMain(m *testing.M) {
	if mode := os.Getenv(asSubject); mode != "" {
		if mode == "exec" { // the last of a chain
			time.Sleep(time.Millisecond)
			os.Exit(0)
		}
		if err := os.WriteFile(os.Getenv(asSubject+"_CGROUP")+"/cgroup.procs", []byte("0"), 0); err != nil {
			panic(err)
		}
		s := &steps{rand: rand.New(rand.NewPCG(1, uint64(os.Getpid())))}
		if mode == "steps" {
			s.follow()
		} else {
			loads[mode](s)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

const (
	page = 4096
	huge = 2 << 20
)

func ready() { fmt.Println("ready", os.Getpid()) }

// steps is memory, and what can be done to it.
type steps struct {
	rand  *rand.Rand
	mem   map[string][]byte
	child int // writes and ends when the first word of "word" is set
}

func mmap(size, prot, flags, fd int) []byte {
	at, _, errno := unix.Syscall6(unix.SYS_MMAP, 0, uintptr(size), uintptr(prot), uintptr(flags), uintptr(fd), 0)
	if errno != 0 {
		panic(errno)
	}
	return unsafe.Slice((*byte)(*(*unsafe.Pointer)(unsafe.Pointer(&at))), size)
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func address(b []byte) uintptr { return uintptr(unsafe.Pointer(&b[0])) }

func call(nr uintptr, args ...uintptr) uintptr {
	var a [6]uintptr
	copy(a[:], args)
	r, _, errno := unix.Syscall6(nr, a[0], a[1], a[2], a[3], a[4], a[5])
	if errno != 0 {
		panic(errno)
	}
	return r
}

func (s *steps) fill(b []byte) {
	for i := 0; i < len(b); i += page {
		*(*uint64)(unsafe.Pointer(&b[i])) = s.rand.Uint64() | 1
		b[i+page-1] = byte(i >> 12)
	}
}

const (
	rw        = unix.PROT_READ | unix.PROT_WRITE
	private   = unix.MAP_PRIVATE | unix.MAP_ANONYMOUS
	sharedMap = unix.MAP_SHARED | unix.MAP_ANONYMOUS
)

// prepare makes memory of all kinds.
func (s *steps) prepare() {
	s.mem = map[string][]byte{
		"plain":  mmap(64*page, rw, private, -1),
		"shared": mmap(256*page, rw, sharedMap, -1),
		"thp":    mmap(4*huge, rw, private, -1),
		"spare":  mmap(1<<34, unix.PROT_NONE, private|unix.MAP_NORESERVE, -1),
	}
	thp := s.mem["thp"]
	thp = thp[(huge-address(thp)%huge)%huge:][:2*huge]
	must(unix.Madvise(thp, unix.MADV_HUGEPAGE))
	s.mem["thp"] = thp
	exe, err := os.Open("/proc/self/exe")
	must(err)
	s.mem["file"] = mmap(16*page, rw, unix.MAP_PRIVATE, int(exe.Fd()))
	exe.Close()
	fd, err := unix.MemfdCreate("closed", 0)
	must(err)
	must(unix.Ftruncate(fd, 16*page))
	s.mem["memfd"] = mmap(16*page, rw, unix.MAP_SHARED, fd)
	must(unix.Close(fd))
	fd, err = unix.MemfdCreate("open", 0)
	must(err)
	must(unix.Ftruncate(fd, 16*page))
	s.mem["open"] = mmap(16*page, rw, unix.MAP_SHARED, fd)
	for name, b := range s.mem {
		if name != "spare" && name != "file" {
			s.fill(b)
		}
	}
	s.fill(s.mem["file"][:8*page])
	s.separate()
}

// separate makes one mapping two, the second of which is elsewhere. Something
// else is in its place.
func (s *steps) separate() {
	b, to := mmap(128*page, rw, private, -1), mmap(64*page, unix.PROT_NONE, private, -1)
	s.fill(b)
	s.mem["first"], s.mem["second"], s.mem["place"] = b[:64*page], to, b[64*page:]
	call(unix.SYS_MREMAP, address(b[64*page:]), 64*page, 64*page, unix.MREMAP_MAYMOVE|unix.MREMAP_FIXED, address(to))
	call(unix.SYS_MMAP, address(b[64*page:]), 64*page, unix.PROT_READ, private|unix.MAP_FIXED, ^uintptr(0), 0)
}

func (s *steps) follow() {
	s.prepare()
	s.mem["word"] = mmap(page, rw, sharedMap, -1)
	s.child = waiting(s.mem["word"], s.mem["shared"][9*page:])
	in := bufio.NewScanner(os.Stdin)
	ready()
	for in.Scan() {
		do := doings[in.Text()]
		if do == nil {
			panic("no step " + in.Text())
		}
		do(s)
		fmt.Println("ok")
	}
}

// doings are the steps. Each is something a tracker may miss.
var doings = map[string]func(s *steps){
	"nothing":    func(*steps) {},
	"write":      func(s *steps) { s.fill(s.mem["plain"][3*page : 5*page]) },
	"write thp":  func(s *steps) { s.fill(s.mem["thp"][page : 2*page]) },
	"drop":       func(s *steps) { must(unix.Madvise(s.mem["plain"][:8*page], unix.MADV_DONTNEED)) },
	"drop thp":   func(s *steps) { must(unix.Madvise(s.mem["thp"][:huge], unix.MADV_DONTNEED)) },
	"drop copy":  func(s *steps) { must(unix.Madvise(s.mem["file"][:4*page], unix.MADV_DONTNEED)) },
	"write copy": func(s *steps) { s.fill(s.mem["file"][2*page : 10*page]) },
	"write spare": func(s *steps) {
		must(unix.Mprotect(s.mem["spare"][huge:2*huge], rw))
		s.fill(s.mem["spare"][huge : huge+9*page])
	},
	"forbid":        func(s *steps) { s.fill(s.mem["plain"][:page]); must(unix.Mprotect(s.mem["plain"], unix.PROT_NONE)) },
	"lock":          func(s *steps) { must(unix.Mlock(s.mem["plain"][:16*page])) },
	"write shared":  func(s *steps) { s.fill(s.mem["shared"][page : 3*page]) },
	"write memfd":   func(s *steps) { s.fill(s.mem["memfd"][page : 3*page]) },
	"write open":    func(s *steps) { s.fill(s.mem["open"][page : 3*page]) },
	"remove shared": func(s *steps) { must(unix.Madvise(s.mem["shared"][:4*page], unix.MADV_REMOVE)) },
	"punch and read": func(s *steps) {
		must(unix.Madvise(s.mem["shared"][:4*page], unix.MADV_REMOVE))
		if s.mem["shared"][page] != 0 {
			panic("not removed")
		}
	},
	"write and drop shared": func(s *steps) {
		s.fill(s.mem["shared"][5*page : 6*page])
		must(unix.Madvise(s.mem["shared"][5*page:6*page], unix.MADV_DONTNEED))
	},
	"zero page": func(s *steps) {
		must(unix.Madvise(s.mem["plain"][:8*page], unix.MADV_DONTNEED))
		if s.mem["plain"][page] != 0 {
			panic("not dropped")
		}
	},
	"guard": func(s *steps) {
		const madvGuardInstall = 102
		_ = unix.Madvise(s.mem["plain"][:8*page], madvGuardInstall) // EINVAL before Linux 6.13
	},
	"move": func(s *steps) {
		b, to := s.mem["plain"], mmap(64*page, unix.PROT_NONE, private, -1)
		call(unix.SYS_MREMAP, address(b), uintptr(len(b)), uintptr(len(b)), unix.MREMAP_MAYMOVE|unix.MREMAP_FIXED, address(to))
		s.mem["plain"] = to
	},
	"move away and back": func(s *steps) {
		b, to := s.mem["plain"], mmap(64*page, unix.PROT_NONE, private, -1)
		n := uintptr(len(b))
		call(unix.SYS_MREMAP, address(b), n, n, unix.MREMAP_MAYMOVE|unix.MREMAP_FIXED, address(to))
		s.fill(to[7*page : 9*page])
		call(unix.SYS_MREMAP, address(to), n, n, unix.MREMAP_MAYMOVE|unix.MREMAP_FIXED, address(b))
	},
	"merge": func(s *steps) {
		call(unix.SYS_MREMAP, address(s.mem["second"]), 64*page, 64*page, unix.MREMAP_MAYMOVE|unix.MREMAP_FIXED, address(s.mem["place"]))
		s.fill(s.mem["first"][2*page : 4*page])
		s.fill(s.mem["place"][2*page : 4*page])
	},
	"merge and move": func(s *steps) {
		call(unix.SYS_MREMAP, address(s.mem["second"]), 64*page, 64*page, unix.MREMAP_MAYMOVE|unix.MREMAP_FIXED, address(s.mem["place"]))
		call(unix.SYS_MREMAP, address(s.mem["first"]), 64*page, 64*page, unix.MREMAP_MAYMOVE|unix.MREMAP_FIXED, address(s.mem["plain"]))
	},
	"replace": func(s *steps) {
		b := s.mem["plain"]
		call(unix.SYS_MMAP, address(b), uintptr(len(b)), rw, private|unix.MAP_FIXED, ^uintptr(0), 0)
		s.fill(b[20*page : 21*page])
	},
	"replace by file": func(s *steps) {
		exe, err := os.Open("/proc/self/exe")
		must(err)
		call(unix.SYS_MMAP, address(s.mem["plain"]), 64*page, unix.PROT_READ, unix.MAP_SHARED|unix.MAP_FIXED, exe.Fd(), 0)
		exe.Close()
	},
	"unmap":        func(s *steps) { call(unix.SYS_MUNMAP, address(s.mem["plain"]), 64*page) },
	"unmap shared": func(s *steps) { call(unix.SYS_MUNMAP, address(s.mem["shared"]), uintptr(len(s.mem["shared"]))) },
	"forked writer": func(s *steps) {
		forked(s.mem["shared"][7*page:], uint64(s.rand.Uint64()), 0)
	},
	"forked and written": func(s *steps) {
		s.fill(s.mem["shared"][:page])
		forked(s.mem["shared"][7*page:], s.rand.Uint64(), 0)
	},
	"remove and write": func(s *steps) {
		must(unix.Madvise(s.mem["shared"][:4*page], unix.MADV_REMOVE))
		s.fill(s.mem["shared"][8*page : 9*page])
	},
	"written by a known child": func(s *steps) {
		s.fill(s.mem["shared"][:page])
		*(*uint64)(unsafe.Pointer(&s.mem["word"][0])) = 1
		_, _ = unix.Wait4(s.child, nil, 0, nil)
	},
	"forked": func(s *steps) {
		s.fill(s.mem["plain"][:4*page])
		forked(s.mem["plain"][2*page:], s.rand.Uint64(), 1)
	},
	"stack": func(s *steps) { _ = deep(3000) },
	"seccomp": func(*steps) {
		// Allow all but userfaultfd, whose number the filter kills.
		filter := []unix.SockFilter{
			{Code: 0x20, K: 0},
			{Code: 0x15, Jt: 0, Jf: 1, K: unix.SYS_USERFAULTFD},
			{Code: 0x06, K: 0x80000000},
			{Code: 0x06, K: 0x7fff0000},
		}
		prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
		must(unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		const modeFilter, tsync = 1, 1
		call(unix.SYS_SECCOMP, modeFilter, tsync, uintptr(unsafe.Pointer(&prog)))
	},
	"own userfaultfd": func(s *steps) {
		fd := call(unix.SYS_USERFAULTFD, unix.O_CLOEXEC|unix.O_NONBLOCK|1)
		api := [3]uint64{0xaa, 0, 0}
		call(unix.SYS_IOCTL, fd, 0xc018aa3f, uintptr(unsafe.Pointer(&api)))
		b := mmap(8*page, rw, private, -1)
		s.fill(b)
		reg := [4]uint64{uint64(address(b)), 8 * page, 1, 0} // missing
		call(unix.SYS_IOCTL, fd, 0xc020aa00, uintptr(unsafe.Pointer(&reg)))
		s.mem["their own"] = b
	},
	"read into": func(s *steps) { // the kernel writes, not the process
		zero, err := os.Open("/dev/urandom")
		must(err)
		_, err = zero.Read(s.mem["plain"][30*page : 33*page])
		must(err)
		zero.Close()
	},
	"code": func(s *steps) { // as a JIT makes it
		b := mmap(8*page, rw|unix.PROT_EXEC, private, -1)
		s.fill(b[page : 3*page])
		s.mem["code"] = b
	},
	"grow down": func(s *steps) {
		b := mmap(1024*page, unix.PROT_NONE, private, -1)
		at := address(b) + 1000*page
		call(unix.SYS_MMAP, at, 4*page, rw, private|unix.MAP_FIXED|unix.MAP_GROWSDOWN, ^uintptr(0), 0)
		s.fill(b[1000*page : 1001*page])
		// What is below must not be accessible, or there has to be a gap.
		call(unix.SYS_MUNMAP, address(b)+990*page, 10*page)
		s.mem["down"] = b
		s.fill(b[998*page : 1000*page])
	},
	"watch writes": func(s *steps) { // as Wine does
		b := mmap(8*page, rw, private, -1)
		s.fill(b)
		fd := call(unix.SYS_USERFAULTFD, unix.O_CLOEXEC|unix.O_NONBLOCK|1)
		api := [3]uint64{0xaa, 1<<13 | 1<<15, 0}
		call(unix.SYS_IOCTL, fd, 0xc018aa3f, uintptr(unsafe.Pointer(&api)))
		reg := [4]uint64{uint64(address(b)), 8 * page, 2, 0}
		call(unix.SYS_IOCTL, fd, 0xc020aa00, uintptr(unsafe.Pointer(&reg)))
		s.mem["watched"] = b
		if got := written(b); got != 8 {
			panic(got)
		}
		s.fill(b[2*page : 5*page])
	},
	"see writes": func(s *steps) {
		if got := written(s.mem["watched"]); got != 3 {
			panic(fmt.Sprint(got, " pages, 3 were written"))
		}
	},
	"leader ends": func(s *steps) {
		go func() {
			runtime.LockOSThread()
			s.fill(s.mem["plain"][4*page : 6*page])
			fmt.Println("ok")
			for {
				time.Sleep(time.Hour)
			}
		}()
		if unix.Gettid() != unix.Getpid() {
			panic("not the leader")
		}
		call(unix.SYS_EXIT)
	},
	"execute": func(*steps) {
		must(os.Setenv(asSubject, "steps"))
		must(unix.Exec("/proc/self/exe", []string{"subject"}, os.Environ()))
	},
}

// written counts the pages that were written since it was called last.
func written(b []byte) (pages uint64) {
	pagemap, err := os.Open("/proc/self/pagemap")
	must(err)
	defer pagemap.Close()
	regions := new([8][3]uint64)
	arg := [12]uint64{0: 96, 1: 1, 2: uint64(address(b)), 3: uint64(address(b)) + uint64(len(b)), 6: 8, 9: 2, 11: 2}
	arg[5] = uint64(uintptr(unsafe.Pointer(regions)))
	n := call(unix.SYS_IOCTL, pagemap.Fd(), 0xc0606610, uintptr(unsafe.Pointer(&arg)))
	for _, r := range regions[:n] {
		pages += (r[1] - r[0]) / page
	}
	runtime.KeepAlive(regions)
	return pages
}

func deep(n int) (sum int) {
	var b [1000]byte
	b[n%1000] = byte(n)
	if n > 0 {
		sum = deep(n-1) + int(b[n%999])
	}
	return sum
}

// forked has a child write to a page, and end, or sleep for good.
//
//go:norace
//go:nosplit
func forked(b []byte, value, stay uint64) {
	pid, _, errno := unix.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 {
		panic(errno)
	}
	if pid == 0 {
		*(*uint64)(unsafe.Pointer(&b[0])) = value
		for stay != 0 {
			unix.RawSyscall(unix.SYS_PPOLL, 0, 0, 0)
		}
		for {
			unix.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
		}
	}
	if stay == 0 {
		_, _ = unix.Wait4(int(pid), nil, 0, nil)
	}
}

// waiting has a child wait for a word, write to a page, and end.
//
//go:norace
//go:nosplit
func waiting(word, b []byte) int {
	pid, _, errno := unix.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 {
		panic(errno)
	}
	if pid == 0 {
		pause := unix.Timespec{Nsec: 1e6}
		for *(*uint64)(unsafe.Pointer(&word[0])) == 0 {
			unix.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&pause)), 0, 0)
		}
		*(*uint64)(unsafe.Pointer(&b[0])) = 0x77
		for {
			unix.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
		}
	}
	return int(pid)
}
