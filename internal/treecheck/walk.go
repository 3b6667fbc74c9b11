package treecheck

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

const dirFlags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_NOATIME | unix.O_CLOEXEC

// visitor is called for name in the directory dir, before what is beneath it.
type visitor func(dir int, name, path string, st *unix.Stat_t) error

// walker goes through a tree with one open directory, however deep it is.
type walker struct {
	dir   int
	visit visitor
	buf   []byte
}

// walk visits the directory root, which it takes over, and all beneath, the
// names of a directory in order.
func walk(root int, visit visitor) error {
	w := &walker{dir: root, visit: visit, buf: make([]byte, 64<<10)}
	defer func() { unix.Close(w.dir) }()
	if _, err := w.enter(".", ""); err != nil {
		return err
	}
	return w.directory("")
}

// directory visits what is in the open directory.
func (w *walker) directory(path string) error {
	var here unix.Stat_t
	if err := unix.Fstat(w.dir, &here); err != nil {
		return err
	}
	names, err := list(w.dir, w.buf)
	if err != nil {
		return fmt.Errorf("list %q: %w", path, err)
	}
	for _, name := range names {
		below := join(path, name)
		dir, err := w.enter(name, below)
		if err != nil {
			return err
		}
		if !dir {
			continue
		}
		if err := w.beneath(name, below, &here); err != nil {
			return err
		}
	}
	return nil
}

func (w *walker) enter(name, path string) (dir bool, err error) {
	var st unix.Stat_t
	if err = unix.Fstatat(w.dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err == nil {
		err = w.visit(w.dir, name, path, &st)
	}
	if err != nil {
		return false, fmt.Errorf("%q: %w", path, err)
	}
	return isDir(&st), nil
}

// beneath goes down, and back up to the directory that here is.
func (w *walker) beneath(name, path string, here *unix.Stat_t) error {
	if err := w.change(name); err != nil {
		return fmt.Errorf("open directory %q: %w", path, err)
	}
	if err := w.directory(path); err != nil {
		return err
	}
	if err := w.change(".."); err != nil {
		return fmt.Errorf("leave directory %q: %w", path, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(w.dir, &st); err != nil {
		return err
	}
	if st.Dev != here.Dev || st.Ino != here.Ino {
		return fmt.Errorf("directory %q was moved meanwhile", path)
	}
	return nil
}

func (w *walker) change(name string) error {
	fd, err := unix.Openat(w.dir, name, dirFlags, 0)
	if err != nil {
		return err
	}
	unix.Close(w.dir)
	w.dir = fd
	return nil
}

// list returns the names in a directory, sorted.
func list(dir int, buf []byte) (names []string, err error) {
	if _, err := unix.Seek(dir, 0, unix.SEEK_SET); err != nil {
		return nil, err
	}
	for {
		n, err := unix.ReadDirent(dir, buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if n <= 0 {
			slices.Sort(names)
			return names, nil
		}
		_, _, names = unix.ParseDirent(buf[:n], -1, names)
	}
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "/" + name
}
