package files

import (
	"errors"

	"golang.org/x/sys/unix"
)

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
	return t.special(name, e)
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
	if err := t.pool.barrier(); err != nil {
		return err
	}
	if err := t.trail.remove(name); err != nil && !errors.Is(err, unix.ENOENT) {
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

// special makes what has no content.
func (t *Target) special(name string, e *entry) error {
	b, err := t.birth()
	if err != nil {
		return err
	}
	err = t.replace(name, func(dir int) error { return makeSpecial(dir, name, e) })
	if e.device() && denied(err) {
		return t.own.losses.lose(lossDevices, e.path, err)
	}
	if err != nil {
		return err
	}
	dir, err := t.trail.fd()
	if err != nil {
		return err
	}
	return t.own.describeSpecial(dir, name, e, b)
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
	if err := unix.Fstat(from, &st); err != nil {
		return err
	}
	if err := t.pool.settle(fileID{st.Dev, st.Ino}); err != nil {
		return err
	}
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
		return across(dir, func() error { return unix.Linkat(from, base, dir, name, 0) })
	})
}

// delete takes a file-delete frame in.
func (t *Target) delete(path string) error {
	dir, name, err := splitEntry(path)
	if err != nil {
		return err
	}
	if err := t.pool.barrier(); err != nil {
		return err
	}
	if err := t.enter(dir); err != nil {
		return err
	}
	t.stats.Deleted++
	err = t.trail.remove(name)
	if errors.Is(err, unix.ENOENT) && t.own.losses.counted(lossDevices) {
		return nil // it may have been one
	}
	if errors.Is(err, unix.ENOENT) {
		return hostile("delete of %s, which is missing", quoted(path))
	}
	return pathErrorIf("delete", path, err)
}

// batch takes a file-batch frame in.
func (t *Target) batch(payload []byte) error {
	path, records, err := parseBatchHead(payload)
	if err != nil {
		return err
	}
	parts, err := splitPath(path)
	if err != nil {
		return err
	}
	if err := t.enter(parts); err != nil {
		return err
	}
	if _, err := t.birth(); err != nil {
		return pathError("read", path, err)
	}
	dir, err := t.trail.fd()
	if err != nil {
		return pathError("open directory", path, err)
	}
	return pathErrorIf("write to", path, t.pool.add(t.here(), dir, records))
}
