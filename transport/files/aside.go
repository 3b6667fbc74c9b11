package files

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"

	"golang.org/x/sys/unix"
)

// asidePrefix begins the name of the directory for what is put aside.
const asidePrefix = ".vzkit-aside-"

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

// openAside makes the directory for what is put aside, on first use: in the
// staging directory, whose file system it has to be in, by a name that the peer
// cannot know.
func (t *Target) openAside() (err error) {
	if t.shelf >= 0 {
		return nil
	}
	root, name := t.trail.fds[0], fmt.Sprintf("%s%016x", asidePrefix, rand.Uint64())
	if err := unix.Mkdirat(root, name, 0o700); err != nil {
		return pathError("create directory", name, err)
	}
	t.shelfName = name
	if t.shelf, err = openBeneath(root, name, dirFlags, 0); err != nil {
		t.shelf = -1
		return errors.Join(pathError("open directory", name, err), unix.Unlinkat(root, name, unix.AT_REMOVEDIR))
	}
	return nil
}

// clearAside removes that directory with all that is still in it.
func (t *Target) clearAside() error {
	if t.shelf < 0 {
		return nil
	}
	tree := newTrail(t.shelf)
	t.shelf = -1
	defer tree.close()
	if err := tree.empty(); err != nil {
		return pathError("empty directory", t.shelfName, err)
	}
	return pathErrorIf("remove directory", t.shelfName, unix.Unlinkat(t.trail.fds[0], t.shelfName, unix.AT_REMOVEDIR))
}
