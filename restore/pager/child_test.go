package pager_test

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The test binary is also the process whose memory is filled: it maps a
// region, says where, and then does what it reads from its standard input, one
// word a line, and answers each with a line.
const asChild = "PAGER_TEST_AS_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(asChild) != "" || os.Getenv(asPager) != "" {
		runtime.LockOSThread()
		work := child
		if os.Getenv(asPager) != "" {
			work = bePager
		}
		if err := work(); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Setenv("GORACE", "atexit_sleep_ms=0") // guards need no second to end
	os.Exit(m.Run())
}

const pageSize = 4096

// regionPages is the size of the region. Page n holds contentOf(n) at both of
// its ends, unless it is one of those that the store does not have.
const regionPages = 4096

//
//go:norace
//go:nosplit
func contentOf(page int) uint64 {
	if page%7 == 3 {
		return 0
	}
	return uint64(page)*0x9e3779b97f4a7c15 | 1
}

func content(page int) []byte {
	b := make([]byte, pageSize)
	binary.NativeEndian.PutUint64(b, contentOf(page))
	binary.NativeEndian.PutUint64(b[pageSize-8:], contentOf(page))
	return b
}

func mmap(size int) ([]byte, error) {
	return unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
}

func child() error {
	region, err := mmap(regionPages * pageSize)
	if err != nil {
		return err
	}
	fmt.Printf("%#x\n", address(region))
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		if err := command(lines.Text(), region); err != nil {
			fmt.Printf("%s: %v\n", lines.Text(), err)
			continue
		}
		fmt.Println("ok")
	}
	return lines.Err()
}

func address(b []byte) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(b))) }

func command(name string, region []byte) error {
	switch name {
	case "touch": // pages that are there before
		for n := 0; n < regionPages; n += 50 {
			region[n*pageSize+100] = 1
		}
		return nil
	case "verify":
		return verify(region, 0, 0)
	case "threads":
		return inThreads(region)
	case "fork":
		return forks(region)
	case "forkstorm":
		for range 20 {
			if err := forks(region); err != nil {
				return err
			}
		}
		return nil
	case "move":
		return moves(region)
	case "drop":
		return drops(region)
	case "unmap":
		return unmaps(region)
	case "kernel":
		return kernel(region)
	case "clean":
		return clean()
	case "grow":
		var err error
		big, err = mmap(1 << 30)
		fmt.Printf("%#x\n", address(big))
		return err
	case "churn":
		fmt.Println(churn())
		return nil
	case "spawn":
		return spawn()
	}
	return fmt.Errorf("no such command")
}

// verify checks a part of the region, which begins with the given page.
func verify(part []byte, first int, step int) error {
	if bad := firstBad(part, first, step); bad >= 0 {
		at := bad * pageSize
		return fmt.Errorf("page %d at %#x: %x and %x, want %x", first+bad, address(part[at:]),
			binary.NativeEndian.Uint64(part[at:]), binary.NativeEndian.Uint64(part[at+pageSize-8:]), contentOf(first+bad))
	}
	return nil
}

// firstBad runs in forked children, too, which have no Go runtime.
//
//go:norace
//go:nosplit
func firstBad(part []byte, first, step int) int {
	pages := len(part) / pageSize
	for i := range pages {
		n := i
		if step > 1 {
			n = i * step % pages
		}
		begin := *(*uint64)(unsafe.Pointer(&part[n*pageSize]))
		end := *(*uint64)(unsafe.Pointer(&part[n*pageSize+pageSize-8]))
		if want := contentOf(first + n); begin != want || end != want {
			return n
		}
	}
	return -1
}

func inThreads(region []byte) error {
	var wg sync.WaitGroup
	errs := make(chan error, 8)
	for n := range 8 {
		wg.Go(func() {
			runtime.LockOSThread()
			if err := verify(region, 0, 2*n+1); err != nil {
				errs <- err
			}
		})
	}
	wg.Wait()
	select {
	case err := <-errs:
		return err
	default:
		return nil
	}
}

// fork makes a child that verifies the region and ends.
//
//go:norace
//go:nosplit
func fork(region []byte, step int) (pid uintptr, errno unix.Errno) {
	pid, _, errno = unix.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 || pid != 0 {
		return pid, errno
	}
	code := uintptr(0)
	if firstBad(region, 0, step) >= 0 {
		code = 1
	}
	for {
		unix.RawSyscall(unix.SYS_EXIT_GROUP, code, 0, 0)
	}
}

// forks has children verify the region while their parent writes to it.
func forks(region []byte) error {
	var pids [3]uintptr
	for n := range pids {
		pid, errno := fork(region, 2*n+1)
		if errno != 0 {
			return errno
		}
		pids[n] = pid
		if n == 0 {
			continue
		}
		for page := n; page < regionPages; page += 97 { // which the children must not see
			region[page*pageSize]++
			region[page*pageSize]--
		}
	}
	for page := 0; page < regionPages; page += 11 {
		region[page*pageSize] ^= 0xff
	}
	var bad error
	for _, pid := range pids {
		var status unix.WaitStatus
		if _, err := unix.Wait4(int(pid), &status, 0, nil); err != nil || status.ExitStatus() != 0 {
			bad = fmt.Errorf("child ends with %x, %v", status, err)
		}
	}
	for page := 0; page < regionPages; page += 11 {
		region[page*pageSize] ^= 0xff
	}
	if bad != nil {
		return bad
	}
	return verify(region, 0, 1)
}

// parts is how many pieces the region is cut into, by those who change it.
const parts = 64

func part(region []byte, n int) (piece []byte, first int) {
	size := len(region) / parts
	return region[n*size : (n+1)*size], n * size / pageSize
}

// moves moves every other piece away and back.
func moves(region []byte) error {
	for n := 0; n < parts; n += 2 {
		piece, first := part(region, n)
		room, err := mmap(len(piece))
		if err != nil {
			return err
		}
		for _, step := range [][2]uintptr{{address(piece), address(room)}, {address(room), address(piece)}} {
			_, _, errno := unix.Syscall6(unix.SYS_MREMAP, step[0], uintptr(len(piece)), uintptr(len(piece)),
				unix.MREMAP_MAYMOVE|unix.MREMAP_FIXED, step[1], 0)
			if errno != 0 {
				return errno
			}
			at := piece
			if step[1] == address(room) {
				at = room
			}
			if err := verify(at[:len(at)/2], first, 1); err != nil {
				return fmt.Errorf("moved: %w", err)
			}
		}
	}
	return verify(region, 0, 1)
}

// drops drops every other piece, which is zero then.
func drops(region []byte) error {
	for n := 0; n < parts; n += 2 {
		piece, _ := part(region, n)
		if err := unix.Madvise(piece, unix.MADV_DONTNEED); err != nil {
			return err
		}
		if err := wantZero(piece); err != nil {
			return err
		}
		piece[0], piece[0] = 1, 0
	}
	return verifyOthers(region)
}

func wantZero(piece []byte) error {
	for n := range len(piece) / pageSize {
		if got := binary.NativeEndian.Uint64(piece[n*pageSize:]); got != 0 {
			return fmt.Errorf("page %d of what is new has %#x", n, got)
		}
	}
	return nil
}

func verifyOthers(region []byte) error {
	for range 2 {
		for n := range parts {
			piece, first := part(region, n)
			err := wantZero(piece)
			if n%2 == 1 {
				err = verify(piece, first, 1)
			}
			if err != nil {
				return fmt.Errorf("part %d: %w", n, err)
			}
		}
		time.Sleep(10 * time.Millisecond) // for a fill that would come too late
	}
	return nil
}

// unmaps puts new memory into the place of every other piece.
func unmaps(region []byte) error {
	for n := 0; n < parts; n += 2 {
		piece, _ := part(region, n)
		if _, _, errno := unix.Syscall(unix.SYS_MUNMAP, address(piece), uintptr(len(piece)), 0); errno != 0 {
			return errno
		}
		_, _, errno := unix.Syscall6(unix.SYS_MMAP, address(piece), uintptr(len(piece)), unix.PROT_READ|unix.PROT_WRITE,
			unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_FIXED, ^uintptr(0), 0)
		if errno != 0 {
			return errno
		}
		if err := wantZero(piece); err != nil {
			return err
		}
	}
	return verifyOthers(region)
}

// kernel has the kernel read and write the region.
func kernel(region []byte) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	defer w.Close()
	got := make([]byte, 16)
	for n := 0; n < regionPages-1; n++ {
		end := (n + 1) * pageSize
		if _, err := w.Write(region[end-8 : end+8]); err != nil { // the kernel faults on two pages
			return err
		}
		if _, err := io.ReadFull(r, got); err != nil {
			return err
		}
		a, b := binary.NativeEndian.Uint64(got), binary.NativeEndian.Uint64(got[8:])
		if a != contentOf(n) || b != contentOf(n+1) {
			return fmt.Errorf("written %x and %x after page %d", a, b, n)
		}
		if _, err := w.WriteString("middle of a page"); err != nil {
			return err
		}
		if _, err := io.ReadFull(r, region[end-3000:end-3000+16]); err != nil {
			return err
		}
	}
	return verify(region, 0, 1)
}

// clean checks that nothing is left in the process: no descriptor, and no
// mapping that is registered.
func clean() error {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	for _, entry := range entries {
		link, _ := os.Readlink("/proc/self/fd/" + entry.Name())
		if strings.Contains(link, "userfaultfd") || strings.HasPrefix(link, "socket:") {
			return fmt.Errorf("descriptor %s is %s", entry.Name(), link)
		}
	}
	smaps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		return err
	}
	if strings.Contains(string(smaps), " um ") {
		return fmt.Errorf("a mapping is registered")
	}
	return nil
}

// spawn makes 500 threads that sleep.
func spawn() error {
	var started sync.WaitGroup
	for range 500 {
		started.Add(1)
		go func() {
			runtime.LockOSThread()
			started.Done()
			_ = unix.Nanosleep(&unix.Timespec{Sec: 1000}, nil)
		}()
	}
	started.Wait()
	return nil
}

// big is what "grow" has made.
var big []byte

// churn writes to random pages for a second, at 100 MB/s at most, and returns
// to how many.
func churn() (pages int) {
	const rate = 25600 // pages a second
	random := uint64(1)
	for begin := time.Now(); time.Since(begin) < time.Second; {
		for due := int(time.Since(begin).Seconds() * rate); pages < due; pages++ {
			random = random*6364136223846793005 + 1442695040888963407
			big[random>>33%uint64(len(big)/pageSize)*pageSize]++
		}
		time.Sleep(time.Millisecond)
	}
	return pages
}
