package files

import (
	"errors"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// asideSuffix makes the name of the directory for what is put aside, beside the
// staging directory.
const asideSuffix = ".aside"

// aside takes a file-aside frame in.
func (t *Target) aside(payload []byte) error {
	number, path, name, err := t.goTo(payload)
	if err != nil {
		return err
	}
	if err := t.openAside(); err != nil {
		return err
	}
	dir, err := t.trail.fd()
	if err != nil {
		return pathError("put aside", path, err)
	}
	shelf := strconv.FormatUint(number, 10)
	err = move(dir, name, t.shelf, shelf)
	if errors.Is(err, unix.EEXIST) {
		return hostile("number %d for %s is taken", number, quoted(path))
	}
	if errors.Is(err, unix.ENOENT) {
		return hostile("%s is to be put aside, and missing", quoted(path))
	}
	return pathErrorIf("put aside", path, err)
}

// back takes a file-back frame in.
func (t *Target) back(payload []byte) error {
	number, path, name, err := t.goTo(payload)
	if err != nil {
		return err
	}
	if t.shelf < 0 {
		return hostile("nothing is aside for %s", quoted(path))
	}
	dir, err := t.trail.fd()
	if err != nil {
		return pathError("put back", path, err)
	}
	err = move(t.shelf, strconv.FormatUint(number, 10), dir, name)
	if errors.Is(err, unix.EEXIST) || errors.Is(err, unix.ENOENT) {
		return hostile("number %d cannot go to %s: %v", number, quoted(path), err)
	}
	return pathErrorIf("put back", path, err)
}

// goTo enters the directory of the path, with no batch outstanding.
func (t *Target) goTo(payload []byte) (number uint64, path, name string, err error) {
	if number, path, err = numbered(payload); err != nil {
		return 0, "", "", err
	}
	dir, name, err := splitEntry(path)
	if err != nil {
		return 0, "", "", err
	}
	if err := t.pool.barrier(); err != nil {
		return 0, "", "", err
	}
	return number, path, name, t.enter(dir)
}

// move renames, and overwrites nothing. Nobody else is at work there.
func move(from int, name string, to int, as string) error {
	var st unix.Stat_t
	if err := unix.Fstatat(to, as, &st, unix.AT_SYMLINK_NOFOLLOW); err == nil {
		return unix.EEXIST
	} else if !errors.Is(err, unix.ENOENT) {
		return err
	}
	return across(to, func() error { return unix.Renameat(from, name, to, as) })
}

// openAside makes the directory for what is put aside, on first use.
func (t *Target) openAside() (err error) {
	if t.shelf >= 0 {
		return nil
	}
	path := t.staging + asideSuffix
	if err := os.Mkdir(path, 0o700); errors.Is(err, unix.EEXIST) {
		return occupied(path)
	} else if err != nil {
		return pathError("create directory", path, err)
	}
	t.shelf, err = unix.Open(path, dirFlags|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		t.shelf = -1
		return errors.Join(pathError("open directory", path, err), os.Remove(path))
	}
	return nil
}

// clearAside removes that directory with all that is still in it.
func (t *Target) clearAside() error {
	if t.shelf < 0 {
		return nil
	}
	path := t.staging + asideSuffix
	tree := newTrail(t.shelf)
	t.shelf = -1
	defer tree.close()
	if err := tree.empty(); err != nil {
		return pathError("empty directory", path, err)
	}
	return pathErrorIf("remove directory", path, os.Remove(path))
}
