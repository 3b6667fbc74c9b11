package files

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// shared is what the goroutines of a Target have in common.
type shared struct {
	root   int      // the staging directory
	base   *os.File // nil without one
	seed   uint64   // of the sums of this pass
	losses losses
	seals  seals
}

// writer writes entries for one goroutine.
type writer struct {
	*shared
	pool   *pool
	xattrs *xattrIO
	owner  owner
	dir    string // before the paths of entries
	bulk   []byte
}

func newWriter(s *shared) *writer { return &writer{shared: s, xattrs: newXattrIO()} }

// path is that of e from the root on.
func (w *writer) path(e *entry) string {
	if w.dir == "" {
		return e.path
	}
	return w.dir + "/" + e.path
}

// buffer is good for n bytes, at most copySize, until the next call.
func (w *writer) buffer(n int) []byte {
	if len(w.bulk) < n {
		w.bulk = make([]byte, max(n, 64<<10))
	}
	return w.bulk[:n]
}

// describe gives an open file or directory its metadata; b is what it was born
// with if it is new. The order matters: a new owner clears set-user-ID bits and
// capabilities, a new mode changes the ACL, and all of it touches the times.
func (w *writer) describe(fd int, e *entry, b *birth) error {
	if err := w.setMode(fd, e); err != nil {
		return err
	}
	if b == nil || b.acl || len(e.xattrs) > 0 {
		if err := w.setXattrs(byFD(fd), e); err != nil {
			return err
		}
	}
	if b == nil || b.flags != e.flags || b.project != e.project {
		if err := w.setFlags(fd, e, b == nil); err != nil {
			return err
		}
	}
	return pathErrorIf("set times of", w.path(e), setTimes(fd, e.times()))
}

func (e *entry) times() [2]unix.Timespec { return [2]unix.Timespec{e.atime, e.mtime} }

// setMode sets owner and mode where they differ.
func (w *writer) setMode(fd int, e *entry) error {
	const setID = unix.S_ISUID | unix.S_ISGID
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return pathError("read", w.path(e), err)
	}
	if st.Uid != e.uid || st.Gid != e.gid {
		st.Mode &^= setID
		if err := w.ownerError(e, unix.Fchown(fd, int(e.uid), int(e.gid))); err != nil {
			return err
		}
	}
	if st.Mode&0o7777 == e.mode&0o7777 {
		return nil
	}
	return pathErrorIf("set mode of", w.path(e), unix.Fchmod(fd, e.mode&0o7777))
}

func (w *writer) ownerError(e *entry, err error) error {
	if denied(err) {
		return w.losses.lose(lossOwners, w.path(e), err)
	}
	return pathErrorIf("set owner of", w.path(e), err)
}

// setTimes is futimens(3).
func setTimes(fd int, times [2]unix.Timespec) error {
	return unix.UtimesNanoAt(fd, "", times[:], unix.AT_EMPTY_PATH)
}

// describeSpecial is describe for what cannot be opened, name in dir.
func (w *writer) describeSpecial(dir int, name string, e *entry, b *birth) error {
	err := unix.Fchownat(dir, name, int(e.uid), int(e.gid), unix.AT_SYMLINK_NOFOLLOW)
	if err := w.ownerError(e, err); err != nil {
		return err
	}
	if e.kind() != unix.S_IFLNK {
		if err := unix.Fchmodat(dir, name, e.mode&0o7777, 0); err != nil {
			return pathError("set mode of", w.path(e), err)
		}
	}
	if b.acl || len(e.xattrs) > 0 {
		if err := w.setXattrs(byHandle(handle(dir, name)), e); err != nil {
			return err
		}
	}
	times := e.times()
	return pathErrorIf("set times of", w.path(e), unix.UtimesNanoAt(dir, name, times[:], unix.AT_SYMLINK_NOFOLLOW))
}

// subject is what extended attributes belong to.
type subject interface {
	list(buf []byte) (int, error)
	remove(name string) error
	set(name string, value []byte) error
}

type byFD int

func (fd byFD) list(buf []byte) (int, error)    { return unix.Flistxattr(int(fd), buf) }
func (fd byFD) remove(name string) error        { return unix.Fremovexattr(int(fd), name) }
func (fd byFD) set(name string, v []byte) error { return unix.Fsetxattr(int(fd), name, v, 0) }

type byHandle string

func (h byHandle) list(buf []byte) (int, error)    { return unix.Llistxattr(string(h), buf) }
func (h byHandle) remove(name string) error        { return unix.Lremovexattr(string(h), name) }
func (h byHandle) set(name string, v []byte) error { return unix.Lsetxattr(string(h), name, v, 0) }

// setXattrs makes the attributes those of e. A security label of the host stays
// if the sender has none: it is the host's.
func (w *writer) setXattrs(s subject, e *entry) error {
	if err := w.removeStale(s, e.xattrs); err != nil {
		return pathError("set attributes of", w.path(e), err)
	}
	var lost []string // each kind once
	for _, x := range e.xattrs {
		err := s.set(x.name, x.value)
		if err == nil {
			continue
		}
		if !unsupported(err) {
			return pathError("set attributes of", w.path(e), fmt.Errorf("set attribute %q: %w", x.name, err))
		}
		if what := lossOf(x.name); !slices.Contains(lost, what) {
			lost = append(lost, what)
			if err := w.losses.lose(what, w.path(e), err); err != nil {
				return err
			}
		}
	}
	return nil
}

func (w *writer) removeStale(s subject, xs []xattr) error {
	n, err := s.list(w.xattrs.names)
	if unsupported(err) || err == nil && n == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	for _, name := range strings.Split(strings.TrimSuffix(string(w.xattrs.names[:n]), "\x00"), "\x00") {
		same := func(x xattr) bool { return x.name == name }
		if !carried(name) || name == "security.selinux" || slices.ContainsFunc(xs, same) {
			continue
		}
		if err := s.remove(name); err != nil && !errors.Is(err, unix.ENODATA) {
			return fmt.Errorf("remove attribute %q: %w", name, err)
		}
	}
	return nil
}

// setFlags sets the inode flags that let more changes come, and the project
// identifier, and notes the others for Finish.
func (w *writer) setFlags(fd int, e *entry, old bool) error {
	err := writeFlags(fd, carriedFlags, e.flags&^sealing, e.project)
	if unsupported(err) {
		err = w.setSomeFlags(fd, e)
	}
	if err == nil && (old || e.flags&sealing != 0) && e.path != "" {
		err = w.seals.note(fd, e.flags&sealing, w.path(e))
		if unsupported(err) {
			return w.losses.lose(lossFlags, w.path(e), err)
		}
	}
	return pathErrorIf("set flags of", w.path(e), err)
}

// setSomeFlags is for file systems that have not all of it.
func (w *writer) setSomeFlags(fd int, e *entry) error {
	_, project, err := readFlags(fd)
	if err != nil {
		return err
	}
	err = writeFlags(fd, carriedFlags, e.flags&^sealing, project)
	if unsupported(err) {
		err = w.losses.lose(lossFlags, w.path(e), fmt.Errorf("flags %#x: %w", e.flags, err))
	}
	if err != nil || project == e.project {
		return err
	}
	flags, _, err := readFlags(fd)
	if err != nil {
		return err
	}
	err = writeFlags(fd, carriedFlags, flags, e.project)
	if unsupported(err) {
		return w.losses.lose(lossProjects, w.path(e), fmt.Errorf("project %d: %w", e.project, err))
	}
	return err
}
