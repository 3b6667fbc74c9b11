package files

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/internal/treecheck"
	"golang.org/x/sys/unix"
)

// settle waits until the ctime of what was just changed can be trusted.
func settle() { time.Sleep(2 * testGrain) }

// testGrain is that of sources in tests.
const testGrain = 20 * time.Millisecond

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestUnchangedTreeSendsNothing(t *testing.T) {
	g := plant(t, 1, treecheck.Options{Flags: carriesFlags})
	settle()
	m := newMover(t, g.root)
	first := m.pass(PassOptions{})
	if first.Entries != first.Sent || first.Sent < 10 {
		t.Errorf("pass 1: %+v", first)
	}
	if got := m.pass(PassOptions{Frozen: true}); got.Sent+got.Deleted+got.Bytes+got.Entries != 0 || !got.Tracked {
		t.Errorf("pass 2: %+v", got)
	}
	m.compare()
}

func TestYoungTimestampIsNotTrusted(t *testing.T) {
	now := time.Now()
	stamp := func(age time.Duration) unix.Timespec { return unix.NsecToTimespec(now.Add(-age).UnixNano()) }
	second := unix.Timespec{Sec: now.Unix()}
	for _, c := range []struct {
		ctime   unix.Timespec
		seen    time.Time
		changed bool
	}{
		{stamp(0), now, true},
		{stamp(10 * time.Millisecond), now, true},
		{stamp(-time.Hour), now, true}, // the clock was set back
		{stamp(time.Second), now, false},
		{second, time.Unix(second.Sec, 9e8), true},
		{second, time.Unix(second.Sec+1, 9e8), false},
	} {
		var n node
		st := unix.Stat_t{Mode: unix.S_IFREG, Ctim: c.ctime}
		n.record(&st, c.seen, testGrain)
		if n.changed(&st) != c.changed {
			t.Errorf("ctime %v seen %v: changed %v", c.ctime, c.seen, !c.changed)
		}
	}
}

func TestHardLinks(t *testing.T) {
	src := t.TempDir()
	m := newMover(t, src)
	at := func(name string) string { return filepath.Join(src, name) }
	for i, change := range []func(){
		func() { write(t, at("b"), "shared"); must(t, os.Link(at("b"), at("c"))) },
		func() { must(t, os.Link(at("c"), at("a"))) },
		func() { must(t, os.Remove(at("b"))); write(t, at("b"), "own") },
		func() { must(t, os.Remove(at("a"))); must(t, os.Link(at("b"), at("a"))) },
		func() { must(t, os.Rename(at("c"), at("z"))); must(t, os.Link(at("z"), at("c"))) },
		func() { must(t, os.Symlink("x", at("s"))); must(t, os.Link(at("s"), at("s2"))) },
		func() { must(t, os.Remove(at("z"))); must(t, os.Mkdir(at("z"), 0o755)) },
		func() { must(t, os.Link(at("c"), at("z/deep"))) },
		func() { write(t, at("z/deep"), "through the link") },
	} {
		change()
		m.pass(PassOptions{})
		m.compare()
		if t.Failed() {
			t.Fatalf("after change %d", i)
		}
		settle()
	}
}

// TestDeepTree is beyond PATH_MAX, and beyond the levels kept open.
func TestDeepTree(t *testing.T) {
	src := t.TempDir()
	dir, err := unix.Open(src, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	must(t, err)
	for i := range 300 {
		name := fmt.Sprintf("level-%0*d", 40, i)
		must(t, unix.Mkdirat(dir, name, 0o750))
		must(t, unix.Mknodat(dir, "z", unix.S_IFIFO|0o600, 0))
		next, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		must(t, err)
		unix.Close(dir)
		dir = next
	}
	defer unix.Close(dir)
	m := newMover(t, src)
	m.pass(PassOptions{})
	must(t, unix.Linkat(unix.AT_FDCWD, src+"/z", dir, "linked", 0))
	must(t, unix.Mkdirat(dir, "leaf", 0o700))
	m.pass(PassOptions{})
	must(t, unix.Unlinkat(dir, "leaf", unix.AT_REMOVEDIR))
	m.pass(PassOptions{Frozen: true})
	must(t, m.target.Finish())
	compareSnapshots(t, snap(t, src), snap(t, m.dst))
	must(t, os.RemoveAll(filepath.Join(src, fmt.Sprintf("level-%0*d", 40, 0))))
	m.pass(PassOptions{})
	m.compare()
}

func TestPathBeyondLimit(t *testing.T) {
	src := t.TempDir()
	trail := newTrail(openTest(t, src))
	defer trail.close()
	for range 260 {
		name := fmt.Sprintf("%0255d", 1)
		dir, err := trail.fd()
		must(t, err)
		must(t, unix.Mkdirat(dir, name, 0o700))
		must(t, trail.push(name))
	}
	source, err := NewSource(src, SourceOptions{})
	must(t, err)
	defer source.Close()
	_, err = source.Pass(t.Context(), &tape{}, PassOptions{Pass: 1})
	if fault.KindOf(err) != fault.Copy || fault.HintOf(err) == "" {
		t.Errorf("err = %v", err)
	}
}

func openTest(t *testing.T, dir string) int {
	t.Helper()
	fd, err := unix.Open(dir, dirFlags|unix.O_CLOEXEC, 0)
	must(t, err)
	return fd
}

// TestBusyTree moves a tree in which everything changes while it is read; once
// it stands still, the last pass makes it equal.
func TestBusyTree(t *testing.T) {
	g := plant(t, 7, treecheck.Options{})
	m := newMover(t, g.root)
	stop := make(chan struct{})
	var busy sync.WaitGroup
	busy.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				if _, err := g.Change(); err != nil {
					t.Error(err)
					return
				}
				time.Sleep(200 * time.Microsecond) // or it outgrows the passes
			}
		}
	})
	for range 30 {
		m.pass(PassOptions{})
	}
	close(stop)
	busy.Wait()
	m.pass(PassOptions{Frozen: true})
	m.compare()
	compareByRsync(t, m.src, m.dst)
}

// TestFileChangesWhileRead changes a file between its runs of data.
func TestFileChangesWhileRead(t *testing.T) {
	const size = 3 * chunkSize
	for name, change := range map[string]func(path string) error{
		"shrinks":  func(path string) error { return os.Truncate(path, chunkSize+5) },
		"empties":  func(path string) error { return os.Truncate(path, 0) },
		"grows":    func(path string) error { return os.Truncate(path, 9*chunkSize) },
		"vanishes": os.Remove,
	} {
		t.Run(name, func(t *testing.T) {
			src := t.TempDir()
			write(t, src+"/f", string(make([]byte, size)))
			write(t, src+"/g", "after")
			m := newMover(t, src)
			done := false
			m.pass(PassOptions{Progress: func(s Stats) {
				if s.Bytes > 0 && !done {
					done = true
					must(t, change(src+"/f"))
				}
			}})
			m.pass(PassOptions{Frozen: true})
			m.compare()
		})
	}
}

// TestFrozenTreeMoves checks that a tree that is not frozen does not pass.
func TestFrozenTreeMoves(t *testing.T) {
	for name, change := range map[string]func(src string) error{
		"shrinks":  func(src string) error { return os.Truncate(src+"/f", 5) },
		"vanishes": func(src string) error { return os.Remove(src + "/g") },
	} {
		t.Run(name, func(t *testing.T) {
			src := t.TempDir()
			write(t, src+"/f", string(make([]byte, 2*ahead*chunkSize))) // more than is read ahead
			write(t, src+"/g", "after")
			source, err := NewSource(src, SourceOptions{})
			must(t, err)
			defer source.Close()
			done := false
			_, err = source.Pass(t.Context(), &tape{}, PassOptions{Pass: 1, Frozen: true, Progress: func(s Stats) {
				if s.Bytes > 0 && !done {
					done = true
					must(t, change(src))
				}
			}})
			if fault.KindOf(err) != fault.Copy {
				t.Errorf("err = %v", err)
			}
			if _, again := source.Pass(t.Context(), &tape{}, PassOptions{Pass: 2}); again == nil {
				t.Error("the source goes on after an error")
			}
		})
	}
}

// TestMappedFile writes through a mapping that is dirty already, which moves no
// time stamp: Always makes the file go.
func TestMappedFile(t *testing.T) {
	src := t.TempDir()
	write(t, src+"/f", string(make([]byte, 8192)))
	f, err := os.OpenFile(src+"/f", os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	mem, err := unix.Mmap(int(f.Fd()), 0, 8192, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	must(t, err)
	defer unix.Munmap(mem)
	mem[0] = 1
	settle()
	m := newMover(t, src)
	m.pass(PassOptions{})
	mem[1] = 2
	var st unix.Stat_t
	must(t, unix.Fstat(int(f.Fd()), &st))
	m.pass(PassOptions{Frozen: true, Writers: map[[2]uint64]bool{{st.Dev, st.Ino}: true}})
	m.compare()
}

// TestMountedOver shows that what is mounted over the tree is not part of it,
// and that the source is only read.
func TestMountedOver(t *testing.T) {
	src := t.TempDir()
	write(t, src+"/sub/beneath", "1")
	must(t, unix.Mount("tmpfs", src+"/sub", "tmpfs", 0, "size=1m"))
	mounted := true
	defer func() {
		if mounted {
			unix.Unmount(src+"/sub", unix.MNT_DETACH)
		}
	}()
	write(t, src+"/sub/above", "1")
	m := newMover(t, src)
	m.pass(PassOptions{})
	_, inodes, err := Measure(t.Context(), src)
	if err != nil || inodes != 3 {
		t.Errorf("measured %d inodes, %v", inodes, err)
	}
	must(t, unix.Unmount(src+"/sub", 0))
	mounted = false
	m.compare()
	if err := unix.Mkdirat(int(m.source.tree.Fd()), "x", 0o700); !errors.Is(err, unix.EROFS) {
		t.Errorf("mkdir in the source: %v", err)
	}
}

func TestMeasure(t *testing.T) {
	src := t.TempDir()
	write(t, src+"/d/f", string(make([]byte, 1<<20)))
	must(t, os.Link(src+"/d/f", src+"/g"))
	must(t, os.WriteFile(src+"/hole", nil, 0o644))
	must(t, os.Truncate(src+"/hole", 1<<30))
	bytes, inodes, err := Measure(t.Context(), src)
	if err != nil || inodes != 4 || bytes < 1<<20 || bytes > 2<<20 {
		t.Errorf("Measure = %d, %d, %v", bytes, inodes, err)
	}
	if _, _, err := Measure(t.Context(), src+"/g"); !errors.Is(err, unix.ENOTDIR) {
		t.Errorf("Measure of a file: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := Measure(ctx, src); fault.KindOf(err) != fault.Interrupted {
		t.Errorf("Measure cancelled: %v", err)
	}
}

// TestWatchEnds: a pass does without a watch that has ended.
func TestWatchEnds(t *testing.T) {
	src := t.TempDir()
	write(t, src+"/f", "1")
	m := newMover(t, src)
	m.pass(PassOptions{})
	must(t, m.source.watch.Close())
	write(t, src+"/g", "2")
	if got := m.pass(PassOptions{}); got.Tracked || m.source.Watched() == nil {
		t.Errorf("%+v, %v", got, m.source.Watched())
	}
	m.compare()
}
