package track

import (
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestPageSet compares a set with a map of pages.
func TestPageSet(t *testing.T) {
	const base, pages = 0x7f0000000000 - 300*PageSize, 3 * chunkPages
	var set pageSet
	model := map[uint64]bool{}
	r := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		start := base + r.Uint64N(pages)*PageSize
		end := min(start+r.Uint64N(1+r.Uint64N(700))*PageSize, base+pages*PageSize)
		if r.IntN(2) == 0 {
			set.add(start, end)
			for at := start; at < end; at += PageSize {
				model[at] = true
			}
		} else {
			want, was := uint64(0), span{^uint64(0), 0}
			for at := start; at < end; at += PageSize {
				if model[at] {
					want, was.start, was.end = want+1, min(was.start, at), at+PageSize
				}
				delete(model, at)
			}
			if got, n := set.remove(start, end); n != want || got != was {
				t.Fatalf("remove %#x-%#x: %d pages in %#x, not %d in %#x", start, end, n, got, want, was)
			}
		}
		has := map[uint64]bool{}
		last := uint64(0)
		set.present(base, base+pages*PageSize, func(s span) {
			if s.start >= s.end || s.start <= last {
				t.Fatalf("span %#x after %#x", s, last)
			}
			last = s.end
			for at := s.start; at < s.end; at += PageSize {
				has[at] = true
			}
		})
		missing := uint64(0)
		set.missing(base, base+pages*PageSize, func(s span) { missing += s.pages() })
		if len(has) != len(model) || missing+uint64(len(model)) != pages {
			t.Fatalf("%d pages in the set, %d missing; %d expected", len(has), missing, len(model))
		}
		for at := range has {
			if !model[at] {
				t.Fatalf("page %#x should not be there", at)
			}
		}
	}
}

// TestPlainScan reads pagemap as kernels without PAGEMAP_SCAN need it.
func TestPlainScan(t *testing.T) {
	mem, err := unix.Mmap(-1, 0, 4*vecLen*PageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(mem)
	for i := 0; i < len(mem)/PageSize; i += 1 + i%3 {
		mem[i*PageSize] = 1
	}
	pagemap, err := os.Open("/proc/self/pagemap")
	if err != nil {
		t.Fatal(err)
	}
	defer pagemap.Close()
	s, err := newScanner()
	if err != nil {
		t.Fatal(err)
	}
	v := vma{start: addressOf(mem), end: addressOf(mem) + uint64(len(mem)), class: anonymous}
	// A scan may end a region before the pages that lie side by side do.
	look := func() (found []span) {
		if _, err := s.scan(int(pagemap.Fd()), s.content(&v, 0, 0, 0), v.start, v.end, func(rs []region) error {
			for _, r := range rs {
				found = join(found, r.start, r.end)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return found
	}
	fast := look()
	s.plain, s.words = true, make([]byte, 8*vecLen)
	if plain := look(); !slices.Equal(plain, fast) || len(fast) < vecLen {
		t.Errorf("%d spans are read, %d are scanned", len(plain), len(fast))
	}
}

func TestParseMaps(t *testing.T) {
	text := "00400000-00401000 r-xp 00002000 fe:01 123                    /bin/a b\n" +
		"7ffc00000000-7ffc00021000 rw-p 00000000 00:00 0 [stack]\n" +
		"7ffc00020000-7ffc00030000 rw-p 00000000 00:00 0 \n" + // goes back
		"no line\n" +
		"7ffd00000000-7ffd00001000 rw-s 00000000 00:01 7 /dev/zero (deleted)"
	var names []string
	got := parseMaps([]byte(text), nil, func(v *vma, flags, name []byte) class {
		names = append(names, string(flags)+string(name))
		return anonymous
	})
	want := []vma{
		{start: 0x400000, end: 0x401000, low: 0x400000, high: 0x7ffc00000000, offset: 0x2000, file: fileKey{unix.Mkdev(0xfe, 1), 123}, class: anonymous, exec: true},
		{start: 0x7ffc00000000, end: 0x7ffc00021000, low: 0x401000, high: 0x7ffd00000000, class: anonymous, write: true},
		{start: 0x7ffd00000000, end: 0x7ffd00001000, low: 0x7ffc00021000, high: 0x7ffd00001000, file: fileKey{unix.Mkdev(0, 1), 7}, class: anonymous, write: true},
	}
	if !slices.Equal(got, want) {
		t.Errorf("mappings are %+v", got)
	}
	if want := []string{"r-xp/bin/a b", "rw-p[stack]", "rw-s/dev/zero (deleted)"}; !slices.Equal(names, want) {
		t.Errorf("names are %q", names)
	}
}

// TestOwnProc: pids are looked up in a /proc only if it counts like the task.
func TestOwnProc(t *testing.T) {
	self, err := pidsOf(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if !ownProc(&task{tid: os.Getpid(), pids: self}) {
		t.Error("own /proc is taken for another's")
	}
	cmd := exec.Command("sleep", "100")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID, Pdeathsig: unix.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = cmd.Process.Kill(), cmd.Wait() }()
	pids, err := pidsOf(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	if ownProc(&task{tid: cmd.Process.Pid, pids: pids}) {
		t.Errorf("process with pids %d sees another's /proc, which is taken for its own", pids)
	}
}

// TestOwns: what was registered as shared memory is not a process's own.
func TestOwns(t *testing.T) {
	s := &space{ours: []span{{1, 4}, {6, 9}}, common: []span{{4, 6}}}
	for _, c := range []struct {
		vma
		want bool
	}{
		{vma{start: 1, end: 4, class: anonymous}, true}, {vma{start: 7, end: 8, class: fileCopy}, true},
		{vma{start: 3, end: 5, class: anonymous}, false}, {vma{start: 4, end: 6, class: anonymous}, false},
		{vma{start: 4, end: 6, class: shared}, true}, {vma{start: 6, end: 7, class: shared}, false},
	} {
		if got := s.owns(&c.vma); got != c.want {
			t.Errorf("%d-%d of class %d: %v", c.start, c.end, c.class, got)
		}
	}
}
