package files

import (
	"errors"

	"golang.org/x/sys/unix"
)

// level is a directory that the pass is in, or has left with batches still to
// be written to it.
type level struct {
	id    fileID
	path  string
	entry *entry           // the metadata that it gets, nil to keep its own
	times [2]unix.Timespec // those it had before something in it changed
	birth *birth           // nil until something is made in it

	// Of the pool:
	fd   int // while there are jobs, else -1
	jobs int
	left bool
}

// fileID tells inodes apart.
type fileID struct{ dev, ino uint64 }

// birth is what an inode has that is new in a directory.
type birth struct {
	acl            bool // one that comes from the directory's default
	flags, project uint32
}

func newLevel(st *unix.Stat_t, path string) *level {
	return &level{
		id: fileID{st.Dev, st.Ino}, path: path, fd: -1,
		times: [2]unix.Timespec{st.Atim, st.Mtim},
	}
}

// here is the directory at the end of the trail.
func (t *Target) here() *level { return t.levels[len(t.levels)-1] }

// birth is that in the directory at the end of the trail.
func (t *Target) birth() (*birth, error) {
	f := t.here()
	if f.birth != nil {
		return f.birth, nil
	}
	dir, err := t.trail.fd()
	if err != nil {
		return nil, err
	}
	f.birth, err = birthIn(dir)
	return f.birth, err
}

func birthIn(dir int) (*birth, error) {
	flags, project, err := readFlags(dir)
	if err != nil {
		return nil, err
	}
	b := &birth{flags: flags & inherited}
	if flags&flagProjInherit != 0 {
		b.project = project
	}
	_, err = unix.Fgetxattr(dir, "system.posix_acl_default", nil)
	b.acl = err == nil
	if errors.Is(err, unix.ENODATA) || unsupported(err) {
		err = nil
	}
	return b, err
}

// enter makes the trail that of dir, leaving directories and entering others.
func (t *Target) enter(dir []string) error {
	common := 0
	for common < min(len(dir), len(t.trail.names)) && dir[common] == t.trail.names[common] {
		common++
	}
	for len(t.trail.names) > common {
		if err := t.leave(); err != nil {
			return err
		}
	}
	for _, name := range dir[common:] {
		if err := t.descend(name, nil); err != nil {
			return err
		}
	}
	return nil
}

// descend enters the directory name, which is to get the metadata e, nil to
// keep its own.
func (t *Target) descend(name string, e *entry) error {
	if err := t.trail.push(name); gone(err) {
		return hostile("%s is no directory", quoted(t.trail.path(name)))
	} else if err != nil {
		return pathError("open directory", t.trail.path(name), err)
	}
	f, err := t.look()
	if err != nil {
		t.trail.pop()
		return pathError("read", t.trail.path(name), err)
	}
	if e != nil {
		f.entry = e
	}
	t.levels = append(t.levels, f)
	return nil
}

// look finds the level for the end of the trail. Its times are true only if no
// worker is to put them right.
func (t *Target) look() (*level, error) {
	st, err := t.trail.stat(".")
	if err != nil {
		return nil, err
	}
	if f := t.pool.find(fileID{st.Dev, st.Ino}); f != nil {
		return f, nil
	}
	if st, err = t.trail.stat("."); err != nil {
		return nil, err
	}
	return newLevel(&st, t.trail.here()), nil
}

// leave finishes the directory at the end of the trail, unless batches are to
// come to it first, and goes back up.
func (t *Target) leave() error {
	f := t.here()
	t.levels = t.levels[:len(t.levels)-1]
	if !t.pool.leave(f) {
		dir, err := t.trail.fd()
		if err != nil {
			return pathError("open directory", f.path, err)
		}
		if err := t.own.finish(f, dir); err != nil {
			return err
		}
	}
	t.trail.pop()
	return nil
}

// finish gives a directory that the pass has left what it is to have.
func (w *writer) finish(f *level, dir int) error {
	if f.entry == nil {
		return pathErrorIf("set times of", f.path, setTimes(dir, f.times))
	}
	w.dir = ""
	return w.describe(dir, f.entry, nil)
}
