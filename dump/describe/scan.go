package describe

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/vzkit/vzkit/dump/track"
)

// pagemapScan is the request PAGEMAP_SCAN (linux/fs.h).
const pagemapScan = 0xc0606610

// Categories of pages (linux/fs.h).
const (
	pageIsFile    = 1 << 2
	pageIsPresent = 1 << 3
	pageIsSwapped = 1 << 4
	pageIsPfnZero = 1 << 5
)

// argument is struct pm_scan_arg.
type argument struct {
	Size, Flags, Start, End, WalkEnd  uint64
	Vec, VecLen, MaxPages             uint64
	Inverted, Mask, AnyOf, ReturnMask uint64
}

const (
	argumentSize = 96
	walkEndAt    = 32 // offset
)

// region is struct page_region.
type region struct{ Start, End, Categories uint64 }

const regionSize = 24

// forContent tells CRIU's question for the pages that have content of their
// own, not its search for guard pages or its probing of the kernel.
func (a argument) forContent() bool {
	const not = pageIsPfnZero | pageIsFile
	return a.Size == argumentSize && a.Flags == 0 && a.MaxPages == 0 && a.Start < a.End &&
		a.Inverted == not && a.Mask == not && a.AnyOf == pageIsPresent|pageIsSwapped
}

func readArgument(pid int, at uint64) (a argument, err error) {
	var b [argumentSize]byte
	if err := transfer(unix.ProcessVMReadv, pid, at, b[:]); err != nil {
		return a, err
	}
	return a, binary.Read(bytes.NewReader(b[:]), binary.NativeEndian, &a)
}

// transfer moves b from or to a process's memory.
func transfer(move func(int, []unix.Iovec, []unix.RemoteIovec, uint) (int, error), pid int, at uint64, b []byte) error {
	if len(b) == 0 {
		return nil
	}
	local := []unix.Iovec{{Base: &b[0]}}
	local[0].SetLen(len(b))
	n, err := move(pid, local, []unix.RemoteIovec{{Base: uintptr(at), Len: len(b)}}, 0)
	if err == nil && n != len(b) {
		err = unix.EFAULT
	}
	if err != nil {
		return fmt.Errorf("memory of process %d at %#x: %w", pid, at, err)
	}
	return nil
}

// maxRegions bounds what is looked at in one go; CRIU asks again for the rest.
const maxRegions = 4096

// answer is what a scan found, up to walkEnd.
type answer struct {
	regions []region
	walkEnd uint64
}

// scan looks at what is not hidden as CRIU would have.
func (d *Describer) scan(pid int, a argument, rest []track.Range) (answer, error) {
	if len(rest) == 0 {
		return answer{walkEnd: a.End}, nil
	}
	f, err := d.pagemap(pid)
	if err != nil {
		return answer{}, err
	}
	regions := make([]region, min(a.VecLen, maxRegions))
	found := 0
	for _, r := range rest {
		if found == len(regions) {
			return answer{regions, r.Start}, nil
		}
		one := a
		one.Start, one.End, one.WalkEnd = r.Start, r.End, 0
		n, err := one.ask(f, regions[found:])
		if err != nil {
			return answer{}, err
		}
		found += n
		// If there was room left, that is all. Else WalkEnd may lie before what
		// was found: the kernel has a buffer of its own.
		if end := max(one.WalkEnd, r.Start); found == len(regions) && end < r.End {
			return answer{regions, max(end, regions[found-1].End)}, nil
		}
	}
	return answer{regions[:found], a.End}, nil
}

// ask makes the call itself.
func (a *argument) ask(f *os.File, regions []region) (n int, err error) {
	a.Vec, a.VecLen = uint64(uintptr(unsafe.Pointer(&regions[0]))), uint64(len(regions))
	r, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), pagemapScan, uintptr(unsafe.Pointer(a)))
	runtime.KeepAlive(regions)
	if errno != 0 {
		return 0, os.NewSyscallError("ioctl PAGEMAP_SCAN", errno)
	}
	return int(r), nil
}

func (d *Describer) pagemap(pid int) (*os.File, error) {
	if f := d.files[pid]; f != nil {
		return f, nil
	}
	f, err := os.Open(fmt.Sprintf("/proc/%d/pagemap", pid))
	if err != nil {
		return nil, err
	}
	d.files[pid] = f
	return f, nil
}

// write puts the answer where CRIU expects it. Its argument lies at at.
func (f answer) write(pid int, at uint64, a argument) error {
	if uint64(len(f.regions)) > a.VecLen {
		return unix.ENOSPC
	}
	b, err := binary.Append(make([]byte, 0, len(f.regions)*regionSize), binary.NativeEndian, f.regions)
	if err != nil {
		return err
	}
	if err := transfer(unix.ProcessVMWritev, pid, a.Vec, b); err != nil {
		return err
	}
	return transfer(unix.ProcessVMWritev, pid, at+walkEndAt, binary.NativeEndian.AppendUint64(nil, f.walkEnd))
}
