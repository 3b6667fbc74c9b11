package template

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// tree makes files below one directory. It reaches every parent by openat2(2)
// without following a link, and makes the file in it by its last name alone.
type tree struct {
	fd     int
	dir    string // the directory that parent is
	parent int    // -1: none yet
}

// attributes are what a file gets once it has its contents.
type attributes struct {
	uid, gid int    // the host's
	mode     uint32 // 07777
	mtime    time.Time
	xattrs   map[string][]byte
}

func openTree(dir string) (*tree, error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %q: %w", dir, err)
	}
	return &tree{fd: fd, parent: -1}, nil
}

func (t *tree) close() {
	if t.parent >= 0 {
		unix.Close(t.parent)
	}
	unix.Close(t.fd)
}

// open opens a directory of the tree.
func (t *tree) open(dir string, flags uint64) (int, error) {
	how := unix.OpenHow{
		Flags:   flags | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV,
	}
	for {
		fd, err := unix.Openat2(t.fd, dir, &how)
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

// at returns the directory that name is in, which stays the tree's, and its
// last part. The entries of a directory follow each other, so the last one is
// kept open.
func (t *tree) at(name string) (dirfd int, base string, err error) {
	dir, base := path.Split(name)
	dir = strings.TrimSuffix(dir, "/")
	if dir == "" {
		return t.fd, base, nil
	}
	if t.parent >= 0 && dir == t.dir {
		return t.parent, base, nil
	}
	fd, err := t.open(dir, unix.O_PATH)
	if err != nil {
		return -1, "", err
	}
	if t.parent >= 0 {
		unix.Close(t.parent)
	}
	t.dir, t.parent = dir, fd
	return fd, base, nil
}

// directory makes a directory, or gives the one that is there a's attributes,
// all but the time.
func (t *tree) directory(name string, a attributes) error {
	if name != "." {
		dirfd, base, err := t.at(name)
		if err != nil {
			return err
		}
		if err := unix.Mkdirat(dirfd, base, 0o700); err != nil && !errors.Is(err, unix.EEXIST) {
			return err
		}
	}
	fd, err := t.open(name, unix.O_RDONLY)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return a.apply(fd)
}

// file makes a regular file with the contents that fill writes.
func (t *tree) file(name string, a attributes, fill func(io.Writer) error) error {
	dirfd, base, err := t.at(name)
	if err != nil {
		return err
	}
	fd, err := unix.Openat(dirfd, base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), base)
	defer f.Close()
	if err := fill(f); err != nil {
		return err
	}
	if err := a.apply(fd); err != nil {
		return err
	}
	return t.setTime(name, a.mtime)
}

// link makes name another name of old.
func (t *tree) link(old, name string) error {
	dir, base := path.Split(old)
	olddir, err := t.open(path.Clean(dir), unix.O_PATH)
	if err != nil {
		return err
	}
	defer unix.Close(olddir)
	var st unix.Stat_t
	if err := unix.Fstatat(olddir, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return errors.New("hard link to a directory")
	}
	dirfd, newbase, err := t.at(name)
	if err != nil {
		return err
	}
	return unix.Linkat(olddir, base, dirfd, newbase, 0)
}

// symlink makes a symbolic link. Its target is the container's to resolve and
// may be any path.
func (t *tree) symlink(target, name string, a attributes) error {
	dirfd, base, err := t.at(name)
	if err != nil {
		return err
	}
	if err := unix.Symlinkat(target, dirfd, base); err != nil {
		return err
	}
	if err := unix.Fchownat(dirfd, base, a.uid, a.gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	return t.setTime(name, a.mtime)
}

func (t *tree) fifo(name string, a attributes) error {
	dirfd, base, err := t.at(name)
	if err != nil {
		return err
	}
	if err := unix.Mknodat(dirfd, base, unix.S_IFIFO|0o600, 0); err != nil {
		return err
	}
	if err := unix.Fchownat(dirfd, base, a.uid, a.gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if err := unix.Fchmodat(dirfd, base, a.mode, 0); err != nil {
		return err
	}
	return t.setTime(name, a.mtime)
}

// apply sets owner, mode and extended attributes in the order that keeps them:
// chown(2) clears the set-user-ID bits and file capabilities.
func (a attributes) apply(fd int) error {
	if err := unix.Fchown(fd, a.uid, a.gid); err != nil {
		return fmt.Errorf("chown: %w", err)
	}
	if err := unix.Fchmod(fd, a.mode); err != nil {
		return fmt.Errorf("chmod: %w", err)
	}
	for name, value := range a.xattrs {
		if err := unix.Fsetxattr(fd, name, value, 0); err != nil {
			return fmt.Errorf("set xattr %q: %w", name, err)
		}
	}
	return nil
}

// setTime sets the modification time of name itself, to the nanosecond.
func (t *tree) setTime(name string, mtime time.Time) error {
	ts, err := unix.TimeToTimespec(mtime)
	if err != nil {
		return err
	}
	dirfd, base, err := t.at(name)
	if err != nil {
		return err
	}
	return unix.UtimesNanoAt(dirfd, base, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW)
}
