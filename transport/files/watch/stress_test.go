package watch

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// model is a picture of a tree that is kept up by what Take says and nothing
// else: by directory, what lstat says of each entry.
type model struct {
	root  uint64
	dirs  map[uint64]map[string]string // state of each entry
	path  map[uint64]string            // of each directory, as last seen
	self  map[uint64]string            // what lstat says of each directory itself
	files map[uint64][]place           // where an inode is, or was
	again map[uint64]struct{}          // directories to look at once more
}

type place struct {
	dir  uint64
	name string
}

// state is all that must not change unnoticed; "" if there is nothing.
func state(dir int, name string) (st unix.Stat_t, s string) {
	if unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW|unix.AT_EMPTY_PATH) != nil {
		return st, ""
	}
	return st, fmt.Sprint(st.Ino, st.Mode, st.Uid, st.Size, st.Nlink, st.Mtim, st.Ctim)
}

// in opens a directory and runs do. If its path leads elsewhere, it or what it
// is in has moved and will be told of: it is looked at again then.
func (m *model) in(dir uint64, do func(d *os.File)) {
	d, err := os.Open(m.path[dir])
	if err != nil {
		m.again[dir] = struct{}{}
		return
	}
	defer d.Close()
	st, s := state(int(d.Fd()), "")
	if st.Ino != dir {
		m.again[dir] = struct{}{}
		return
	}
	m.self[dir] = s
	do(d)
}

// look takes an entry into the model, with all beneath it if it is a directory
// that was not known there.
func (m *model) look(d *os.File, dir uint64, name string) {
	st, s := state(int(d.Fd()), name)
	if s == "" {
		delete(m.dirs[dir], name)
		return
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		m.dirs[dir][name] = s
		m.files[st.Ino] = append(m.files[st.Ino], place{dir, name})
		return
	}
	m.dirs[dir][name] = itoa(int(st.Ino))
	if path := filepath.Join(m.path[dir], name); m.dirs[st.Ino] == nil || m.path[st.Ino] != path {
		m.path[st.Ino] = path
		m.list(st.Ino)
	}
}

func (m *model) list(dir uint64) {
	m.dirs[dir] = map[string]string{} // known before it is listed
	m.in(dir, func(d *os.File) {
		names, _ := d.Readdirnames(-1)
		for _, name := range names {
			m.look(d, dir, name)
		}
	})
}

func (m *model) apply(c Changes) {
	for dir, names := range c.Names {
		m.in(dir, func(d *os.File) {
			for name := range names {
				m.look(d, dir, name)
			}
		})
	}
	for ino := range c.Files {
		places := m.files[ino]
		delete(m.files, ino)
		for _, p := range places {
			m.in(p.dir, func(d *os.File) { m.look(d, p.dir, p.name) })
		}
	}
	for dir := range c.Dirs {
		m.again[dir] = struct{}{}
	}
	for range 3 { // paths may have been set right meanwhile
		again := m.again
		m.again = map[uint64]struct{}{}
		for dir := range again {
			m.list(dir)
		}
	}
}

// compare walks the tree and reports what the model has otherwise. Directories
// that have left the tree are in the model still: nobody asks for them.
func (m *model) compare(t *testing.T, dir uint64, path string) (entries int) {
	names, err := os.ReadDir(path)
	ok(t, err)
	have := maps.Clone(m.dirs[dir])
	for _, e := range names {
		st, s := state(unix.AT_FDCWD, filepath.Join(path, e.Name()))
		got := have[e.Name()]
		if e.IsDir() && got == itoa(int(st.Ino)) {
			got = m.self[st.Ino]
		}
		if got != s {
			t.Errorf("%s/%s: is %s, model has %q", path, e.Name(), s, got)
		}
		delete(have, e.Name())
		entries++
		if e.IsDir() {
			entries += m.compare(t, st.Ino, filepath.Join(path, e.Name()))
		}
	}
	for name := range have {
		t.Errorf("%s/%s: gone, model has it", path, name)
	}
	return entries
}

// mutate makes one random operation in the tree; most of them may fail, as
// others are at work there too.
func mutate(r *rand.Rand, root string) {
	at := func() string {
		p := root
		for range r.IntN(4) {
			p = filepath.Join(p, "d"+itoa(r.IntN(3)))
		}
		return p
	}
	file := func() string { return filepath.Join(at(), "f"+itoa(r.IntN(40))) }
	dir := func() string { return filepath.Join(at(), "d"+itoa(r.IntN(3))) }
	switch r.IntN(12) {
	case 0, 1:
		os.WriteFile(file(), make([]byte, r.IntN(9000)), 0o600)
	case 2, 3:
		os.MkdirAll(dir(), 0o755)
	case 4:
		os.Remove(file())
	case 5:
		os.Rename(file(), file())
	case 6:
		os.Rename(dir(), dir())
	case 7:
		os.Link(file(), file())
	case 8:
		os.Chmod(file(), os.FileMode(0o600|r.IntN(64)))
	case 9:
		os.Truncate(file(), int64(r.IntN(9000)))
	case 10:
		unix.Renameat2(unix.AT_FDCWD, file(), unix.AT_FDCWD, dir(), unix.RENAME_EXCHANGE)
	case 11:
		if r.IntN(20) == 0 {
			os.RemoveAll(dir())
		}
	}
}

// TestModel keeps a model of a tree that several goroutines change, by what
// Take says alone. Whenever all stand still, one Take more must make them equal.
func TestModel(t *testing.T) {
	root := t.TempDir()
	w := start(t, root)
	m := &model{root: inode(root)}
	m.all(root)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	entries := 0
	for round := range uint64(6) {
		stop := disturb(root, seed+round)
		for end := time.Now().Add(200 * time.Millisecond); time.Now().Before(end); {
			m.take(t, w)
			time.Sleep(time.Duration(seed>>round%8) * time.Millisecond)
		}
		stop()
		m.take(t, w)
		entries += m.compare(t, m.root, root)
	}
	t.Logf("%d entries compared", entries)
	if entries == 0 {
		t.Error("nothing was compared")
	}
}

// disturb has goroutines change the tree until the function it returns is
// called.
func disturb(root string, seed uint64) (stop func()) {
	done := make(chan struct{})
	var wg sync.WaitGroup
	for i := range uint64(4) {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(seed, i))
			for {
				select {
				case <-done:
					return
				default:
					mutate(r, root)
				}
			}
		})
	}
	return func() {
		close(done)
		wg.Wait()
	}
}

// all begins anew with the whole tree.
func (m *model) all(root string) {
	m.dirs = map[uint64]map[string]string{}
	m.path = map[uint64]string{m.root: root}
	m.again = map[uint64]struct{}{}
	m.self = map[uint64]string{}
	m.files = map[uint64][]place{}
	m.list(m.root)
}

func (m *model) take(t *testing.T, w *Watch) {
	t.Helper()
	c, lost, err := w.Take(func(dir uint64) bool { return m.dirs[dir] != nil })
	ok(t, err)
	if lost {
		m.all(m.path[m.root])
		return
	}
	m.apply(c)
}
