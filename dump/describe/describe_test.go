package describe

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/vzkit/vzkit/dump/track"
	"github.com/vzkit/vzkit/internal/criu/preload"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestSubtract(t *testing.T) {
	ranges := func(ends ...uint64) (rs []track.Range) {
		for i := 0; i < len(ends); i += 2 {
			rs = append(rs, track.Range{Start: ends[i], End: ends[i+1]})
		}
		return rs
	}
	taken := ranges(10, 20, 20, 30, 40, 50, 60, 70)
	for _, test := range []struct {
		start, end uint64
		rest       []track.Range
	}{
		{0, 5, ranges(0, 5)},
		{0, 10, ranges(0, 10)},
		{10, 30, nil},
		{12, 18, nil},
		{5, 45, ranges(5, 10, 30, 40)},
		{30, 40, ranges(30, 40)},
		{69, 80, ranges(70, 80)},
		{0, 100, ranges(0, 10, 30, 40, 50, 60, 70, 100)},
		{70, 100, ranges(70, 100)},
	} {
		if diff := cmp.Diff(test.rest, subtract(track.Range{Start: test.start, End: test.end}, taken)); diff != "" {
			t.Errorf("[%d, %d): %s", test.start, test.end, diff)
		}
	}
}

const page = track.PageSize

// memory maps pages and writes to those with an even number.
func memory(t *testing.T, pages int) (mem []byte, start uint64) {
	t.Helper()
	mem, err := unix.Mmap(-1, 0, pages*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	must(t, err)
	t.Cleanup(func() { _ = unix.Munmap(mem) })
	must(t, unix.Madvise(mem, unix.MADV_NOHUGEPAGE))
	for i := 0; i < pages; i += 2 {
		mem[i*page] = 1
	}
	return mem, uint64(uintptr(unsafe.Pointer(&mem[0])))
}

// criuAsks is CRIU's question for pages of this process.
type criuAsks struct {
	argument
	regions [64]region
}

// escaped keeps a question off the stack, which moves: its address is a number
// to whoever answers.
var escaped *criuAsks

func question(start, end uint64) *criuAsks {
	const not = pageIsPfnZero | pageIsFile
	q := &criuAsks{argument: argument{
		Size: argumentSize, Start: start, End: end, VecLen: 64,
		Inverted: not, Mask: not, AnyOf: pageIsPresent | pageIsSwapped, ReturnMask: pageIsPresent | pageIsSwapped,
	}}
	escaped = q
	q.Vec = uint64(uintptr(unsafe.Pointer(&q.regions)))
	return q
}

// ask puts the question to a describer, by way of this process's descriptor.
func (q *criuAsks) ask(d *Describer, f *os.File) preload.Answer {
	a := d.Answer(preload.Call{
		PID: os.Getpid(), Number: unix.SYS_IOCTL, Args: [3]uint64{uint64(f.Fd()), pagemapScan, uint64(uintptr(unsafe.Pointer(&q.argument)))},
	})
	runtime.KeepAlive(q)
	return a
}

// pagesOf are the pages, by number from start, in the answer's n regions.
func (q *criuAsks) pagesOf(n int, start uint64) (pages []uint64) {
	for _, r := range q.regions[:n] {
		for at := r.Start; at < r.End; at += page {
			pages = append(pages, (at-start)/page)
		}
	}
	return pages
}

func newDescriber(t *testing.T) (*Describer, *os.File) {
	t.Helper()
	d, err := New()
	must(t, err)
	t.Cleanup(d.Close)
	f, err := os.Open("/proc/self/pagemap")
	must(t, err)
	t.Cleanup(func() { f.Close() })
	return d, f
}

func (d *Describer) hide(start uint64, pages ...uint64) {
	p := track.Process{PID: os.Getpid()}
	for i := 0; i < len(pages); i += 2 {
		p.Ranges = append(p.Ranges, track.Range{Start: start + pages[i]*page, End: start + pages[i+1]*page})
	}
	d.Hide(&track.Layout{Processes: []track.Process{p}})
}

func TestPagesAreHidden(t *testing.T) {
	_, start := memory(t, 20)
	for _, test := range []struct {
		name   string
		hidden []uint64 // from, to
		vec    uint64
		pages  []uint64
		end    uint64 // of the walk
	}{
		{"all", []uint64{0, 20}, 64, nil, 20},
		{"the middle", []uint64{3, 17}, 64, []uint64{0, 2, 18}, 20},
		{"the end and beyond", []uint64{4, 30}, 64, []uint64{0, 2}, 20},
		{"two parts", []uint64{0, 5, 9, 20}, 64, []uint64{6, 8}, 20},
		{"no room for all", []uint64{1, 5}, 3, []uint64{0, 6, 8}, 9},
		{"no room for the second part", []uint64{1, 5}, 1, []uint64{0}, 5},
	} {
		t.Run(test.name, func(t *testing.T) {
			d, f := newDescriber(t)
			d.hide(start, test.hidden...)
			q := question(start, start+20*page)
			q.VecLen = test.vec
			if a, want := q.ask(d, f), preload.Return(len(test.pages)); a != want {
				t.Fatalf("answer %v, want %v", a, want)
			}
			if diff := cmp.Diff(test.pages, q.pagesOf(len(test.pages), start)); diff != "" {
				t.Error(diff)
			}
			if q.WalkEnd < start+test.end*page || q.WalkEnd > start+(test.end+1)*page {
				t.Errorf("walk ends at page %d", (q.WalkEnd-start)/page)
			}
			if d.Hidden() != 1 {
				t.Errorf("%d answers", d.Hidden())
			}
		})
	}
}

// What is not CRIU's question for a tracked process's pages is the kernel's.
func TestOtherScansAreMade(t *testing.T) {
	_, start := memory(t, 4)
	d, f := newDescriber(t)
	d.hide(start, 0, 4)
	null, err := os.Open(os.DevNull)
	must(t, err)
	defer null.Close()
	for name, change := range map[string]func(*criuAsks){
		"guard pages":    func(q *criuAsks) { q.Inverted, q.Mask, q.AnyOf = 0, 1<<8, 0 },
		"written pages":  func(q *criuAsks) { q.Mask, q.Inverted = 1<<1, 0 },
		"with a limit":   func(q *criuAsks) { q.MaxPages = 7 },
		"with flags":     func(q *criuAsks) { q.Flags = 1 },
		"nothing":        func(q *criuAsks) { q.End = q.Start },
		"other memory":   func(q *criuAsks) { q.Start, q.End = q.Start-page, q.Start },
		"other argument": func(q *criuAsks) { q.Size = 64 },
		"bad vector":     func(q *criuAsks) { q.Start, q.End, q.Vec = q.Start-page, q.End+page, 1 },
	} {
		q := question(start, start+4*page)
		change(q)
		before := q.argument
		if a := q.ask(d, f); a != (preload.Answer{}) && name != "bad vector" {
			t.Errorf("%s: answer %v", name, a)
		}
		if q.argument != before && name != "bad vector" {
			t.Errorf("%s: argument has changed", name)
		}
	}
	if a := question(start, start+4*page).ask(d, null); a != (preload.Answer{}) {
		t.Errorf("no pagemap: answer %v", a)
	}
	d.Hide(&track.Layout{})
	if a := question(start, start+4*page).ask(d, f); a != (preload.Answer{}) {
		t.Errorf("process without ranges: answer %v", a)
	}
}

func TestSharedMemoryIsHidden(t *testing.T) {
	d, _ := newDescriber(t)
	var files [2]int
	var inode uint64
	for i := range files {
		fd, err := unix.MemfdCreate(fmt.Sprint("test", i), unix.MFD_CLOEXEC)
		must(t, err)
		defer unix.Close(fd)
		files[i] = fd
	}
	var st unix.Stat_t
	must(t, unix.Fstat(files[0], &st))
	inode = st.Ino
	ordinary, err := os.Create(filepath.Join(t.TempDir(), "file"))
	must(t, err)
	defer ordinary.Close()
	must(t, unix.Fstat(int(ordinary.Fd()), &st))
	d.Hide(&track.Layout{Objects: []track.Object{{Inode: inode}, {Inode: st.Ino}}})
	for name, test := range map[string]struct {
		fd   int
		want preload.Answer
	}{
		"tracked":                           {files[0], preload.Errno(unix.ENXIO)},
		"not tracked":                       {files[1], preload.Answer{}},
		"same inode on another file system": {int(ordinary.Fd()), preload.Answer{}},
		"no file":                           {999, preload.Answer{}},
	} {
		a := d.Answer(preload.Call{PID: os.Getpid(), Number: unix.SYS_LSEEK, Args: [3]uint64{uint64(test.fd), 0, unix.SEEK_DATA}})
		if a != test.want {
			t.Errorf("%s: answer %v, want %v", name, a, test.want)
		}
	}
}

func TestConnections(t *testing.T) {
	d, _ := newDescriber(t)
	ask := func() preload.Answer { return d.Answer(preload.Call{Number: unix.SYS_SOCKET}) }
	if a := ask(); a != (preload.Answer{}) {
		t.Errorf("without sockets: %v", a)
	}
	d.Empty(5, 6)
	for _, want := range []preload.Answer{preload.Return(5), preload.Return(6), {}} {
		if a := ask(); a != want {
			t.Errorf("answer %v, want %v", a, want)
		}
	}
}

// The socket must behave as netlink's to what CRIU does with it.
func TestEmptySocket(t *testing.T) {
	socket, end, err := EmptySocket()
	must(t, err)
	defer socket.Close()
	defer end.Close()
	fd := int(socket.Fd())
	must(t, unix.Sendmsg(fd, make([]byte, 20), nil, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}, 0))
	buf := make([]byte, 16384)
	n, _, flags, _, err := unix.Recvmsg(fd, buf, nil, 0)
	must(t, err)
	if flags&unix.MSG_TRUNC != 0 || n != 20 {
		t.Fatalf("%d bytes, flags %#x", n, flags)
	}
	length, kind, seq := binary.NativeEndian.Uint32(buf), binary.NativeEndian.Uint16(buf[4:]), binary.NativeEndian.Uint32(buf[8:])
	if length != 20 || kind != unix.NLMSG_DONE || seq != listSeq || !bytes.Equal(buf[16:20], make([]byte, 4)) {
		t.Errorf("answer %v", buf[:n])
	}
}

// puppet is a process that makes the system calls it is told, and nothing else.
type puppet struct {
	t   *testing.T
	pid int
	in  io.Writer
	out *bufio.Reader
}

func newPuppet(t *testing.T) *puppet {
	t.Helper()
	cmd := exec.Command("perl", "-e", `$| = 1; while (<STDIN>) { my @a = map { $_ + 0 } split; printf "%d\n", syscall($a[0], @a[1..6]) }`)
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	if err := cmd.Start(); err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { in.Close(); _ = cmd.Wait() })
	p := &puppet{t, cmd.Process.Pid, in, bufio.NewReader(out)}
	p.call(unix.SYS_GETPID, 0, 0, 0, 0, 0, 0) // from now on it has all the memory it needs
	return p
}

func (p *puppet) call(number uint64, args ...uint64) uint64 {
	p.t.Helper()
	line := fmt.Sprint(number)
	for _, a := range append(args, make([]uint64, 6)...)[:6] {
		line += fmt.Sprint(" ", int64(a))
	}
	_, err := fmt.Fprintln(p.in, line)
	must(p.t, err)
	line, err = p.out.ReadString('\n')
	must(p.t, err)
	result, err := strconv.ParseInt(strings.TrimSpace(line), 10, 64)
	must(p.t, err)
	if result == -1 {
		p.t.Fatalf("system call %d%v fails", number, args)
	}
	return uint64(result)
}

func TestCopy(t *testing.T) {
	for _, test := range []struct {
		name    string
		change  func(p *puppet, at uint64)
		changed bool // as Refresh finds
		differs bool // as Check finds
	}{
		{"nothing", func(*puppet, uint64) {}, false, false},
		{"fork flag", func(p *puppet, at uint64) { p.call(unix.SYS_MADVISE, at, 8*page, unix.MADV_DONTFORK) }, false, true},
		{"written", func(p *puppet, at uint64) { p.call(unix.SYS_MADVISE, at, 8*page, unix.MADV_POPULATE_WRITE) }, false, false},
		{"locked", func(p *puppet, at uint64) { p.call(unix.SYS_MLOCK, at, 8*page) }, true, false},
		{"other access", func(p *puppet, at uint64) { p.call(unix.SYS_MPROTECT, at, page, unix.PROT_READ) }, true, false},
		{"split", func(p *puppet, at uint64) { p.call(unix.SYS_MADVISE, at, page, unix.MADV_DONTDUMP) }, true, false},
		{"gone", func(p *puppet, at uint64) { p.call(unix.SYS_MUNMAP, at, 8*page) }, true, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := newPuppet(t)
			at := p.call(unix.SYS_MMAP, 0, 8*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANON, ^uint64(0), 0) // shared: it does not merge with others
			c, err := TakeCopy(p.pid, filepath.Join(t.TempDir(), "smaps"))
			must(t, err)
			test.change(p, at)
			changed, err := c.Refresh()
			if err != nil || changed != test.changed {
				t.Errorf("changed %v, %v", changed, err)
			}
			if err := c.Check(); (err != nil) != test.differs {
				t.Errorf("check: %v", err)
			}
			text, err := os.ReadFile(c.File)
			maps, merr := os.ReadFile(fmt.Sprintf("/proc/%d/maps", p.pid))
			if err != nil || merr != nil || strings.Count(string(text), "VmFlags:") != bytes.Count(maps, []byte("\n")) {
				t.Errorf("copy %q of %q, %v", text, maps, err)
			}
		})
	}
}

func TestCopyOfEndedProcess(t *testing.T) {
	if _, err := TakeCopy(1<<22+1, filepath.Join(t.TempDir(), "smaps")); !os.IsNotExist(err) {
		t.Errorf("error %v", err)
	}
}
