package watch

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	size  = 64 << 20
	block = 4096
)

// loop makes a loop device of so many bytes.
func loop(t testing.TB, size int64) (*os.File, Device) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	f, err := os.Create(path)
	ok(t, err)
	ok(t, f.Truncate(size))
	ok(t, f.Close())
	out, err := exec.Command("losetup", "--find", "--show", "--direct-io=on", path).Output()
	ok(t, err)
	name := strings.TrimSpace(string(out))
	t.Cleanup(func() { ok(t, exec.Command("losetup", "--detach", name).Run()) })
	dev, err := os.OpenFile(name, os.O_RDWR|unix.O_DIRECT, 0)
	ok(t, err)
	t.Cleanup(func() { dev.Close() })
	var st unix.Stat_t
	ok(t, unix.Fstat(int(dev.Fd()), &st))
	return dev, Device{unix.Major(st.Rdev), unix.Minor(st.Rdev)}
}

func open(t testing.TB, d Device, size int64, shift uint) *Watch {
	t.Helper()
	w, err := Open(d, size, shift)
	ok(t, err)
	t.Cleanup(func() { ok(t, w.Close()) })
	return w
}

// taken are the blocks that a watch says were written.
func taken(t testing.TB, w *Watch) (blocks map[int64]bool, lost bool) {
	t.Helper()
	blocks = map[int64]bool{}
	lost, err := w.Take(func(word int64, set uint64) {
		for bit := range int64(64) {
			if set>>bit&1 != 0 {
				blocks[word*64+bit] = true
			}
		}
	})
	ok(t, err)
	return blocks, lost
}

// discard gives back n bytes (ioctl BLKDISCARD).
func discard(dev *os.File, at, n int64) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, dev.Fd(), unix.BLKDISCARD, uintptr(unsafe.Pointer(&[2]int64{at, n}))); errno != 0 {
		return errno
	}
	return nil
}

func write(dev *os.File, b []byte, at, n int64) error {
	_, err := unix.Pwrite(int(dev.Fd()), b[:n], at)
	return err
}

// aligned is memory for direct input and output.
func aligned(t testing.TB, n int) []byte {
	b, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	ok(t, err)
	t.Cleanup(func() { _ = unix.Munmap(b) })
	return b
}

// All that several writers write and discard at once is seen, and nothing
// else.
func TestSeesAll(t *testing.T) {
	dev, d := loop(t, size)
	w := open(t, d, size, 12)
	b := aligned(t, 512*block)
	for range 10 {
		var mu sync.Mutex
		want := map[int64]bool{}
		var writers sync.WaitGroup
		for range 4 {
			writers.Go(func() {
				for range 5 {
					do, at, n := write, rand.Int64N(size/block-512), 1+rand.Int64N(512)
					if rand.IntN(3) == 0 {
						do = func(dev *os.File, _ []byte, at, n int64) error { return discard(dev, at, n) }
					}
					if err := do(dev, b, at*block, n*block); err != nil {
						t.Error(err)
					}
					mu.Lock()
					for i := range n {
						want[at+i] = true
					}
					mu.Unlock()
				}
			})
		}
		writers.Wait()
		got, lost := taken(t, w)
		if fmt.Sprint(got) != fmt.Sprint(want) || lost { // fmt sorts
			t.Fatalf("%d blocks seen of %d, lost %v", len(got), len(want), lost)
		}
	}
	if got, lost := taken(t, w); len(got) > 0 || lost {
		t.Errorf("taken twice: %v, %v", got, lost)
	}
}

func TestSeesOnlyWritesOfItsDevice(t *testing.T) {
	dev, d := loop(t, size)
	other, _ := loop(t, size)
	w := open(t, d, size, 12)
	b := aligned(t, block)
	ok(t, write(other, b, 0, block))
	ok(t, discard(other, 0, size))
	ok(t, unix.Fsync(int(dev.Fd())))
	_, err := unix.Pread(int(dev.Fd()), b, 0)
	ok(t, err)
	if got, lost := taken(t, w); len(got) > 0 || lost {
		t.Errorf("reading, and others: %v, %v", got, lost)
	}
}

// Larger blocks are written when a part of them is.
func TestLargerBlocks(t *testing.T) {
	dev, d := loop(t, size)
	w := open(t, d, size, 16)
	ok(t, write(dev, aligned(t, 2*block), 16*block-block, 2*block))
	ok(t, write(dev, aligned(t, block), size-block, block))
	got, lost := taken(t, w)
	if fmt.Sprint(got) != fmt.Sprint(map[int64]bool{0: true, 1: true, size>>16 - 1: true}) || lost {
		t.Errorf("%v, %v", got, lost)
	}
}

// What cannot be marked is not passed over in silence.
func TestSaysWhatItLost(t *testing.T) {
	const large = 1 << 30
	dev, d := loop(t, large)
	w := open(t, d, large, 12)
	ok(t, discard(dev, 0, mostWords*64*block))
	if got, lost := taken(t, w); len(got) != mostWords*64 || lost {
		t.Errorf("largest: %d blocks, %v", len(got), lost)
	}
	ok(t, discard(dev, 0, mostWords*64*block+block))
	if _, lost := taken(t, w); !lost {
		t.Error("one block more: not said")
	}
	if _, lost := taken(t, w); lost {
		t.Error("said twice")
	}
	half := open(t, d, large/2, 12)
	ok(t, discard(dev, large/2, block))
	if _, lost := taken(t, half); !lost {
		t.Error("beyond the end: not said")
	}
}

func TestRefuses(t *testing.T) {
	for _, c := range []struct {
		size  int64
		shift uint
	}{{0, 12}, {-1, 12}, {size, 11}, {1 << 62, 12}} {
		if w, err := Open(Device{7, 0}, c.size, c.shift); err == nil {
			w.Close()
			t.Errorf("%+v", c)
		}
	}
}

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
