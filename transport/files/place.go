package files

import (
	"encoding/binary"
	"errors"

	"golang.org/x/sys/unix"
)

// leaving is what a directory gets when the pass is done with it: the metadata
// that came for it, or the times that it had before something in it changed.
type leaving struct {
	entry *entry
	times [2]unix.Timespec
}

// incoming is a regular file whose content arrives.
type incoming struct {
	*entry
	fd   int
	name string
	end  int64 // of the last run
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
	st, err := t.trail.stat(".")
	if err != nil {
		return pathError("read", t.trail.here(), err)
	}
	t.leaving = append(t.leaving, leaving{e, [2]unix.Timespec{st.Atim, st.Mtim}})
	return nil
}

// leave finishes the directory at the end of the trail and goes back up.
func (t *Target) leave() error {
	last := len(t.leaving) - 1
	todo := t.leaving[last]
	t.leaving = t.leaving[:last]
	if todo.entry != nil {
		if err := t.describe(".", todo.entry); err != nil {
			return err
		}
	} else if err := t.setTimes(".", todo.times); err != nil {
		return pathError("set times of", t.trail.here(), err)
	}
	t.trail.pop()
	return nil
}

// entry takes a file-entry frame in.
func (t *Target) entry(payload []byte) error {
	e, err := parseEntry(payload)
	if err != nil {
		return err
	}
	t.stats.Entries++
	t.stats.Sent++
	if e.path == "" {
		t.root = e
		return nil
	}
	dir, name, err := splitEntry(e.path)
	if err != nil {
		return err
	}
	if err := t.enter(dir); err != nil {
		return err
	}
	return pathErrorIf("create", e.path, t.place(name, e))
}

func pathErrorIf(op, path string, err error) error {
	if err == nil {
		return nil
	}
	return pathError(op, path, err)
}

// place makes e at name in the directory at the end of the trail.
func (t *Target) place(name string, e *entry) error {
	switch {
	case e.link:
		return t.link(name, e.target)
	case e.isDir():
		return t.directory(name, e)
	case e.regular():
		return t.regular(name, e)
	}
	err := t.replace(name, func(dir int) error { return makeSpecial(dir, name, e) })
	if err != nil {
		return err
	}
	return t.describe(name, e)
}

// replace calls create, which must not overwrite; if something is in the way it
// is removed first.
func (t *Target) replace(name string, create func(dir int) error) error {
	dir, err := t.trail.fd()
	if err != nil {
		return err
	}
	if err := create(dir); !errors.Is(err, unix.EEXIST) {
		return err
	}
	if err := t.trail.remove(name); err != nil {
		return err
	}
	if dir, err = t.trail.fd(); err != nil {
		return err
	}
	return create(dir)
}

// directory keeps one that is there.
func (t *Target) directory(name string, e *entry) error {
	err := t.replace(name, func(dir int) error {
		err := unix.Mkdirat(dir, name, 0o700)
		if !errors.Is(err, unix.EEXIST) {
			return err
		}
		var st unix.Stat_t
		if unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR {
			return nil
		}
		return err
	})
	if err != nil {
		return err
	}
	return t.descend(name, e)
}

// regular always makes a new inode: the old one may have links that the file
// no longer shares.
func (t *Target) regular(name string, e *entry) error {
	return t.replace(name, func(dir int) error {
		fd, err := openBeneath(dir, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, 0o600)
		if err == nil {
			t.file = &incoming{entry: e, fd: fd, name: name}
		}
		return err
	})
}

func makeSpecial(dir int, name string, e *entry) error {
	if e.kind() == unix.S_IFLNK {
		return unix.Symlinkat(e.target, dir, name)
	}
	return unix.Mknodat(dir, name, e.kind()|0o600, int(unix.Mkdev(e.major, e.minor)))
}

// link makes one more hard link to target, or leaves the one that is there.
func (t *Target) link(name, target string) error {
	parts, base, err := splitEntry(target)
	if err != nil {
		return err
	}
	from, err := openDir(t.trail.fds[0], parts)
	if gone(err) {
		return hostile("link to %s, which is missing", quoted(target))
	}
	if err != nil {
		return err
	}
	defer unix.Close(from)
	var st unix.Stat_t
	err = unix.Fstatat(from, base, &st, unix.AT_SYMLINK_NOFOLLOW)
	if gone(err) || err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return hostile("link to %s, which is missing or a directory", quoted(target))
	}
	if err != nil {
		return err
	}
	if old, err := t.trail.stat(name); err == nil && old.Dev == st.Dev && old.Ino == st.Ino {
		return nil
	}
	return t.replace(name, func(dir int) error {
		return unix.Linkat(from, base, dir, name, 0)
	})
}

// delete takes a file-delete frame in.
func (t *Target) delete(path string) error {
	dir, name, err := splitEntry(path)
	if err != nil {
		return err
	}
	if err := t.enter(dir); err != nil {
		return err
	}
	t.stats.Deleted++
	err = t.trail.remove(name)
	if errors.Is(err, unix.ENOENT) {
		return hostile("delete of %s, which is missing", quoted(path))
	}
	return pathErrorIf("delete", path, err)
}

// data takes a file-data frame in.
func (t *Target) data(payload []byte) error {
	f := t.file
	if f == nil || len(payload) < 8 {
		return hostile("data without a file")
	}
	offset, run := binary.BigEndian.Uint64(payload), payload[8:]
	if offset < uint64(f.end) || offset > uint64(f.size) || uint64(len(run)) > uint64(f.size)-offset {
		return hostile("data of %s at %d is out of place", quoted(f.path), offset)
	}
	if len(run) > 0 {
		f.end = int64(offset) + int64(len(run))
		t.stats.Bytes += uint64(len(run))
		return pathErrorIf("write", f.path, writeAt(f.fd, run, int64(offset)))
	}
	if offset != uint64(f.size) {
		return hostile("file %s ends at %d", quoted(f.path), offset)
	}
	return pathErrorIf("write", f.path, t.complete(f))
}

func writeAt(fd int, b []byte, offset int64) error {
	for len(b) > 0 {
		n, err := unix.Pwrite(fd, b, offset)
		if err != nil {
			return err
		}
		b, offset = b[n:], offset+int64(n)
	}
	return nil
}

// complete gives the file its size and its metadata.
func (t *Target) complete(f *incoming) error {
	if f.end < f.size {
		if err := unix.Ftruncate(f.fd, f.size); err != nil {
			return err
		}
	}
	if err := t.closeFile(); err != nil {
		return err
	}
	return t.describe(f.name, f.entry)
}

func (t *Target) closeFile() error {
	if t.file == nil {
		return nil
	}
	fd := t.file.fd
	t.file = nil
	return unix.Close(fd)
}

// describe gives name in the directory at the end of the trail its metadata.
// The order matters: a new owner clears set-user-ID bits and capabilities, a
// new mode changes the ACL, and all of it touches the times.
func (t *Target) describe(name string, e *entry) error {
	dir, err := t.trail.fd()
	if err != nil {
		return pathError("open directory", t.trail.here(), err)
	}
	if err := unix.Fchownat(dir, name, int(e.uid), int(e.gid), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return pathError("set owner of", e.path, err)
	}
	if e.kind() != unix.S_IFLNK {
		if err := unix.Fchmodat(dir, name, e.mode&0o7777, 0); err != nil {
			return pathError("set mode of", e.path, err)
		}
	}
	if err := t.xattrs.write(handle(dir, name), e.xattrs); err != nil {
		return pathError("set attributes of", e.path, err)
	}
	return pathErrorIf("set times of", e.path, t.setTimes(name, [2]unix.Timespec{e.atime, e.mtime}))
}

func (t *Target) setTimes(name string, times [2]unix.Timespec) error {
	dir, err := t.trail.fd()
	if err != nil {
		return err
	}
	return unix.UtimesNanoAt(dir, name, times[:], unix.AT_SYMLINK_NOFOLLOW)
}
