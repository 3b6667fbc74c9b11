package memory_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/restore/memory"
)

const pageSize = memory.PageSize

func newStore(t testing.TB, mib string) (*memory.Store, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "store")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("test", dir, "tmpfs", 0, "size="+mib+"m"); err != nil {
		t.Fatal(err)
	}
	s, err := memory.New(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("left: %v, %v", left, err)
		}
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return s, dir
}

func pages(fill byte, count int) []byte { return bytes.Repeat([]byte{fill}, count*pageSize) }

func put(t testing.TB, s *memory.Store, space, address uint64, data []byte) {
	t.Helper()
	if err := s.Put(space, address, uint32(len(data)/pageSize), data); err != nil {
		t.Fatal(err)
	}
}

// wantPage checks one page; fill 0 means that it is not there.
func wantPage(t testing.TB, s *memory.Store, space, address uint64, fill byte) {
	t.Helper()
	page := make([]byte, pageSize)
	there, err := s.Get(space, address, page)
	if err != nil || there != (fill != 0) || there && !bytes.Equal(page, pages(fill, 1)) {
		t.Errorf("page %#x of space %#x: there %v, %v, begins with %d, want %d", address, space, there, err, page[0], fill)
	}
}

// runs reads a space through Runs and View, as a map of addresses to bytes.
func runs(t testing.TB, s *memory.Store, space uint64, since uint8) map[uint64]byte {
	t.Helper()
	found := map[uint64]byte{}
	for r := range s.Runs(space, 0, 1<<47, since) {
		view, err := s.View(space, r)
		if err != nil || len(view) != int(r.Count)*pageSize {
			t.Fatalf("view of %v: %d bytes, %v", r, len(view), err)
		}
		for n := range uint64(r.Count) {
			found[r.Address+n*pageSize] = view[n*pageSize]
		}
	}
	return found
}

// border is between two of the store's windows.
const border = 0x7fff << 32

func TestPutAndGet(t *testing.T) {
	s, _ := newStore(t, "16")
	for _, space := range []uint64{1, memory.Shared | 1, 2} {
		put(t, s, space, border-2*pageSize, append(pages(1, 2), pages(2, 2)...))
		put(t, s, space, border, pages(3, 1))
		for address, fill := range map[uint64]byte{
			border - 3*pageSize: 0, border - 2*pageSize: 1, border - pageSize: 1,
			border: 3, border + pageSize: 2, border + 2*pageSize: 0, 0: 0,
		} {
			wantPage(t, s, space, address, fill)
		}
		if got := runs(t, s, space, 0); len(got) != 4 || got[border] != 3 || got[border+pageSize] != 2 {
			t.Errorf("runs give %v", got)
		}
	}
	if used := s.Used(); used != 12*pageSize {
		t.Errorf("%d bytes used", used)
	}
	wantPage(t, s, 3, border, 0)
}

func TestZeroDrops(t *testing.T) {
	s, dir := newStore(t, "16")
	put(t, s, 1, border-8*pageSize, pages(1, 16))
	free := blocksFree(t, dir)
	if err := s.Put(1, border-7*pageSize, 14, nil); err != nil {
		t.Fatal(err)
	}
	if got := blocksFree(t, dir) - free; got != 14 {
		t.Errorf("%d pages came back", got)
	}
	if got := runs(t, s, 1, 0); len(got) != 2 || got[border-8*pageSize] != 1 || got[border+7*pageSize] != 1 {
		t.Errorf("left: %v", got)
	}
	if err := errors.Join(s.Put(7, 0, 1<<31, nil), s.Put(1, 0, 1<<31, nil)); err != nil || s.Used() != 2*pageSize {
		t.Errorf("zero of nothing: %v, %d bytes used", err, s.Used())
	}
	put(t, s, 1, border, pages(9, 1))
	wantPage(t, s, 1, border, 9)
}

func blocksFree(t *testing.T, dir string) uint64 {
	t.Helper()
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		t.Fatal(err)
	}
	return fs.Bfree
}

func TestRounds(t *testing.T) {
	s, _ := newStore(t, "16")
	put(t, s, 1, 0, pages(1, 8))
	s.NextRound()
	put(t, s, 1, 2*pageSize, pages(2, 4))
	s.NextRound()
	put(t, s, 1, 5*pageSize, pages(3, 1))
	for since, want := range map[uint8]int{1: 8, 2: 4, 3: 1, 4: 0} {
		if got := runs(t, s, 1, since); len(got) != want {
			t.Errorf("since round %d: %v, want %d pages", since, got, want)
		}
	}
	for range 1000 {
		s.NextRound()
	}
	put(t, s, 1, 0, pages(4, 1))
	if got := runs(t, s, 1, s.Round()); len(got) != 1 || got[0] != 4 {
		t.Errorf("after a thousand rounds: %v", got)
	}
}

func TestObject(t *testing.T) {
	s, _ := newStore(t, "16")
	put(t, s, memory.Shared|5, 3*pageSize, pages(7, 1))
	f, err := s.Object(memory.Shared | 5)
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, pageSize)
	if _, err := f.ReadAt(got, 3*pageSize); err != nil || !bytes.Equal(got, pages(7, 1)) {
		t.Errorf("object has %d, %v", got[0], err)
	}
	if link, err := os.Readlink("/proc/self/fd/" + fmt.Sprint(f.Fd())); err != nil || link != "/memfd:/dev/zero (deleted)" {
		t.Errorf("object is %q, %v", link, err)
	}
	if _, err := s.Object(5); err == nil {
		t.Error("a process's memory is an object")
	}
}

func TestRefusals(t *testing.T) {
	s, _ := newStore(t, "16")
	for name, err := range map[string]error{
		"unaligned":   s.Put(1, 12, 1, pages(1, 1)),
		"no pages":    s.Put(1, 0, 0, nil),
		"kernel":      s.Put(1, 1<<47, 1, pages(1, 1)),
		"beyond":      s.Put(1, 1<<47-pageSize, 2, pages(1, 2)),
		"wraps":       s.Put(1, ^uint64(0)-pageSize+1, 1, pages(1, 1)),
		"short":       s.Put(1, 0, 2, pages(1, 1)),
		"shared end":  s.Put(memory.Shared|1, 1<<47, 1, pages(1, 1)),
		"zero beyond": s.Put(1, 1<<47-pageSize, 2, nil),
	} {
		if fault.KindOf(err) != fault.Protocol {
			t.Errorf("%s: %v", name, err)
		}
	}
	if s.Used() != 0 {
		t.Errorf("%d bytes used", s.Used())
	}
}

// The limit is one for processes and objects together; what is written again
// costs nothing.
func TestFull(t *testing.T) {
	for name, second := range map[string]uint64{"processes": 2, "object": memory.Shared | 2} {
		s, _ := newStore(t, "1")
		put(t, s, 1, 0, pages(1, 200))
		err := s.Put(second, 0, 100, pages(1, 100))
		if fault.KindOf(err) != fault.NoSpace || !strings.Contains(err.Error(), "more than 1 MiB") || fault.HintOf(err) == "" {
			t.Errorf("%s: %v of kind %d", name, err, fault.KindOf(err))
		}
		put(t, s, 1, 0, pages(2, 200))
		if err := s.Release(1, 0, 150*pageSize); err != nil {
			t.Fatal(err)
		}
		put(t, s, second, 0, pages(3, 100))
		wantPage(t, s, second, 99*pageSize, 3)
	}
}

// Several connections put at the same time; the model is a map.
func TestConcurrentPuts(t *testing.T) {
	s, _ := newStore(t, "64")
	var wg sync.WaitGroup
	const area = 600 // pages, for each writer
	models := make([]map[uint64]byte, 4)
	for w := range models {
		models[w] = map[uint64]byte{}
		wg.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(w)))
			base := border - area*2*pageSize + uint64(w)*area*pageSize
			for range 500 {
				at, count, fill := r.Uint64N(area-20), 1+r.IntN(20), byte(r.IntN(4))
				var data []byte
				if fill != 0 {
					data = pages(fill, count)
				}
				if err := s.Put(1, base+at*pageSize, uint32(count), data); err != nil {
					t.Error(err)
				}
				for n := range uint64(count) {
					models[w][base+(at+n)*pageSize] = fill
				}
			}
		})
	}
	wg.Wait()
	there := 0
	for _, model := range models {
		for address, fill := range model {
			wantPage(t, s, 1, address, fill)
			if fill != 0 {
				there++
			}
		}
	}
	if got := runs(t, s, 1, 0); len(got) != there || s.Used() != uint64(there)*pageSize {
		t.Errorf("%d pages listed, %d bytes used, want %d pages", len(got), s.Used(), there)
	}
}

func BenchmarkPut(b *testing.B) {
	s, _ := newStore(b, "1024")
	data := pages(1, 64)
	b.SetBytes(int64(len(data)))
	for n := 0; b.Loop(); n++ {
		address := uint64(n) % 3000 * uint64(len(data))
		if n%3000 == 0 && n > 0 {
			b.StopTimer()
			if err := s.Release(1, 0, 1<<40); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
		}
		put(b, s, 1, address, data)
	}
}
