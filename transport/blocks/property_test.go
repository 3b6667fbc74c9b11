package blocks_test

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/lifecycle/image"
	"github.com/vzkit/vzkit/transport"
	"github.com/vzkit/vzkit/transport/blocks"
	"github.com/vzkit/vzkit/transport/blocks/watch"
)

const size = 256 << 20

// move is an image that goes over while it is in use.
type move struct {
	t      *testing.T
	image  image.Image
	dir    string // where it is mounted
	src    *blocks.Source
	target *blocks.Target
	copy   image.Image
	passes int
	during func(blocks.Stats) // called while a pass goes on
}

// inMemory is a directory that no disk is slow for.
func inMemory(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	ok(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1g"))
	t.Cleanup(func() { ok(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	return dir
}

// newMove makes an image in a directory.
func newMove(t *testing.T, dir string) *move {
	t.Helper()
	m := &move{t: t, image: image.Image{Dir: dir, Label: "vzkit test"}, copy: image.Image{Dir: inMemory(t), Label: "vzkit test copy"}}
	ok(t, m.image.Make(t.Context(), size, 10000))
	var err error
	m.dir, err = m.image.Attach(t.Context())
	ok(t, err)
	t.Cleanup(func() { ok(t, m.image.Detach()) })
	v, err := m.image.InUse()
	ok(t, err)
	t.Cleanup(func() { v.File.Close() })
	m.src, err = blocks.NewSource(v.File, &watch.Device{Major: v.Major, Minor: v.Minor}, m.sync)
	ok(t, err)
	t.Cleanup(func() { ok(t, m.src.Close()) })
	staging, err := os.Open(m.copy.Dir)
	ok(t, err)
	defer staging.Close()
	m.target, err = blocks.NewTarget(staging, image.File, m.src.Size())
	ok(t, err)
	t.Cleanup(func() { ok(t, m.target.Close()) })
	return m
}

func (m *move) sync() error {
	f, err := os.Open(m.dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Syncfs(int(f.Fd()))
}

// pass sends one pass through a pipe.
func (m *move) pass(frozen bool) blocks.Stats {
	m.t.Helper()
	m.passes++
	r, w := io.Pipe()
	sent := make(chan error, 1)
	var stats blocks.Stats
	go func() {
		var err error
		stats, err = m.src.Pass(m.t.Context(), transport.NewConn(nil, w), blocks.PassOptions{Pass: m.passes, Frozen: frozen, Codec: "auto", Progress: m.during})
		w.CloseWithError(err)
		sent <- err
	}()
	conn := transport.NewConn(r, nil)
	_, begin, err := conn.ReadFrame()
	ok(m.t, err)
	_, err = m.target.Receive(m.t.Context(), conn, bytes.Clone(begin))
	ok(m.t, err)
	ok(m.t, <-sent)
	m.t.Logf("pass %d: %+v", m.passes, stats)
	return stats
}

// alike compares the images block by block.
func (m *move) alike() {
	m.t.Helper()
	want, err := os.ReadFile(m.image.Path()) // written past the page cache, which has nothing of it
	ok(m.t, err)
	got, err := os.ReadFile(m.copy.Path())
	ok(m.t, err)
	if !bytes.Equal(got, want) {
		m.t.Error("the images differ")
	}
}

// arrived mounts the copy as it is, without a check before that could repair
// it, compares all files, and has e2fsck look at it.
func (m *move) arrived() {
	m.t.Helper()
	ok(m.t, m.target.Finish())
	ok(m.t, m.target.Sync())
	m.alike()
	dir, err := m.copy.Attach(m.t.Context())
	ok(m.t, err)
	same(m.t, m.dir, dir)
	ok(m.t, m.copy.Detach())
	v, err := m.copy.Claim(m.t.Context())
	ok(m.t, err)
	defer v.File.Close()
	if out, err := exec.Command("e2fsck", "-fn", m.copy.Path()).CombinedOutput(); err != nil {
		m.t.Errorf("e2fsck: %v\n%s", err, out)
	}
}

// same compares two trees by what rsync sees.
func same(t *testing.T, a, b string) {
	t.Helper()
	out, err := exec.Command("rsync", "-aHAXnci", "--numeric-ids", "--delete", a+"/", b+"/").CombinedOutput()
	if err != nil || len(out) > 0 {
		t.Errorf("the trees differ: %v\n%s", err, out)
	}
}

// churn writes, overwrites, cuts, renames and deletes files until stop.
func churn(t *testing.T, dir string, seed uint64, stop *atomic.Bool) {
	r := rand.New(rand.NewPCG(seed, 0))
	name := func() string { return filepath.Join(dir, fmt.Sprintf("d%d", r.IntN(5)), fmt.Sprint(r.IntN(40))) }
	for !stop.Load() {
		path := name()
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Error(err)
			return
		}
		switch r.IntN(12) {
		case 0:
			_ = os.Remove(path)
		case 1:
			_ = os.Rename(path, name())
		case 2:
			_ = os.Truncate(path, r.Int64N(1<<20))
		case 3:
			_ = os.RemoveAll(filepath.Dir(path))
		case 4:
			_ = os.Link(path, name())
		default:
			scribble(r, path)
		}
	}
}

// scribble writes somewhere in a file, now and then durably.
func scribble(r *rand.Rand, path string) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return
	}
	defer f.Close()
	b := make([]byte, r.IntN(200<<10))
	if r.IntN(4) > 0 { // else zeros
		for i := range b {
			b[i] = byte(r.Uint32() >> (8 * (i % 2)))
		}
	}
	_, _ = f.WriteAt(b, r.Int64N(1<<20))
	if r.IntN(8) == 0 {
		_ = f.Sync()
	}
}

// The image arrives as it was when it was written last, whatever happens to it
// meanwhile.
func TestMoveWhileWritten(t *testing.T) {
	for seed, where := range []func(*testing.T) string{(*testing.T).TempDir, inMemory} {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			m := newMove(t, where(t))
			var stop atomic.Bool
			var writers sync.WaitGroup
			defer writers.Wait()
			defer stop.Store(true)
			for n := range uint64(2) {
				dir := filepath.Join(m.dir, fmt.Sprint(n))
				writers.Go(func() { churn(t, dir, 2*uint64(seed)+n, &stop) })
			}
			m.pass(false)
			for n := range 4 {
				switch n {
				case 1:
					_, err := m.image.Compact(t.Context())
					ok(t, err)
				case 2: // by a balloon
					ok(t, m.image.Resize(t.Context(), size*3/4))
				case 3:
					ok(t, m.image.Resize(t.Context(), size))
				}
				m.pass(false)
			}
			stop.Store(true)
			writers.Wait()
			if s := m.pass(true); !s.Tracked {
				t.Error("the last pass looked at everything")
			}
			m.arrived()
		})
	}
}

// What did not change does not go again; what was given back is a hole.
func TestOnlyWhatChanged(t *testing.T) {
	m := newMove(t, inMemory(t))
	big := filepath.Join(m.dir, "big")
	ok(t, os.WriteFile(big, bytes.Repeat([]byte("0123456789abcdef"), 2<<20), 0o644))
	if s := m.pass(false); s.Tracked || s.Data < 32<<20 || s.Data > 40<<20 {
		t.Errorf("first pass: %+v", s)
	}
	if s := m.pass(false); !s.Tracked || s.Data > 1<<20 {
		t.Errorf("nothing changed: %+v", s)
	}
	f, err := os.OpenFile(big, os.O_RDWR, 0)
	ok(t, err)
	_, err = f.WriteAt([]byte("changed"), 10<<20)
	ok(t, err)
	ok(t, f.Close())
	if s := m.pass(false); !s.Tracked || s.Data > 1<<20 || s.Data == 0 {
		t.Errorf("one block changed: %+v", s)
	}
	ok(t, os.Remove(big))
	_, err = m.image.Compact(t.Context())
	ok(t, err)
	if s := m.pass(true); s.Holes < 32<<20 || s.Data > 1<<20 {
		t.Errorf("deleted and given back: %+v", s)
	}
	var st unix.Stat_t
	ok(t, unix.Stat(m.copy.Path(), &st))
	if st.Blocks*512 > 16<<20 {
		t.Errorf("copy of an empty image takes %d bytes", st.Blocks*512)
	}
	m.arrived()
}

// After the watch has lost something, what differs goes, found by comparing.
func TestLost(t *testing.T) {
	m := newMove(t, inMemory(t))
	file := filepath.Join(m.dir, "file")
	ok(t, os.WriteFile(file, bytes.Repeat([]byte("0123456789abcdef"), 1<<20), 0o644))
	m.pass(false)
	m.src.Lose()
	if s := m.pass(false); s.Tracked || s.Looked < 16<<20/blocks.Block || s.Data > 1<<20 {
		t.Errorf("nothing changed: %+v", s)
	}
	ok(t, os.WriteFile(file, bytes.Repeat([]byte("fedcba9876543210"), 1<<20), 0o644))
	ok(t, m.sync())
	m.pass(false)
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	ok(t, err)
	_, err = f.WriteAt([]byte("changed"), 10<<20)
	ok(t, err)
	ok(t, f.Close())
	m.src.Lose()
	if s := m.pass(true); s.Tracked || s.Data > 8<<20 || s.Data == 0 {
		t.Errorf("one block changed: %+v", s)
	}
	m.arrived()
}

// What the kernel writes during the last pass goes along; one that does not come
// to an end is given up.
func TestWrittenInTheLastPass(t *testing.T) {
	m := newMove(t, inMemory(t))
	write := func(name string) {
		ok(t, os.WriteFile(filepath.Join(m.dir, name), []byte(name), 0o644))
		ok(t, m.sync())
	}
	write("first")
	m.pass(false)
	write("before")
	late := 0
	m.during = func(blocks.Stats) {
		if late++; late <= 3 {
			write(fmt.Sprint("late", late))
		}
	}
	m.pass(true)
	m.arrived()
	if late < 3 {
		t.Fatal("nothing was written meanwhile")
	}
	write("again")
	_, err := m.src.Pass(t.Context(), transport.NewConn(nil, io.Discard), blocks.PassOptions{Pass: 3, Frozen: true, Progress: func(blocks.Stats) { write("endless") }})
	if fault.KindOf(err) != fault.Copy || !strings.Contains(err.Error(), "while nobody uses it") {
		t.Errorf("written all the time: %v", err)
	}
}

// An image that nobody uses goes in one pass.
func TestMoveIdle(t *testing.T) {
	m := newMove(t, inMemory(t))
	ok(t, os.WriteFile(filepath.Join(m.dir, "file"), bytes.Repeat([]byte("x"), 5<<20), 0o644))
	ok(t, m.image.Detach())
	v, err := m.image.Claim(t.Context())
	ok(t, err)
	defer v.File.Close()
	if m.src, err = blocks.NewSource(v.File, nil, nil); err != nil {
		t.Fatal(err)
	}
	if s := m.pass(true); s.Tracked || s.Data < 5<<20 {
		t.Errorf("%+v", s)
	}
	ok(t, m.target.Finish())
	m.alike()
}

func TestSourceRefuses(t *testing.T) {
	dir := t.TempDir()
	odd := filepath.Join(dir, "odd")
	ok(t, os.WriteFile(odd, []byte("x"), 0o600))
	for _, path := range []string{dir, odd} {
		f, err := os.Open(path)
		ok(t, err)
		if _, err := blocks.NewSource(f, nil, nil); err == nil {
			t.Error(path)
		}
		f.Close()
	}
	m := newMove(t, inMemory(t))
	ok(t, os.Truncate(m.image.Path(), size+blocks.Block))
	_, err := m.src.Pass(t.Context(), transport.NewConn(nil, io.Discard), blocks.PassOptions{Pass: 1})
	if err == nil {
		t.Error("an image that changed its size goes")
	}
	if _, again := m.src.Pass(t.Context(), transport.NewConn(nil, io.Discard), blocks.PassOptions{Pass: 1}); again == nil {
		t.Error("after an error, another pass")
	}
}

func TestBlocksAreSmall(t *testing.T) {
	for size, want := range map[int64]uint{4096: 12, 10 << 30: 12, 1 << 40: 12, 1<<40 + 4096: 13, image.MaxSize: 16} {
		if got := blocks.ShiftFor(size); got != want {
			t.Errorf("%d bytes: blocks of %d, want %d", size, 1<<got, 1<<want)
		}
	}
}

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
