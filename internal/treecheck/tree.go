package treecheck

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Tree is what a directory tree holds, by path; the root is "".
type Tree map[string]*Entry

// Entry is everything about one name that a move has to keep.
type Entry struct {
	Mode         uint32 // type and permissions, as in stat(2)
	UID, GID     uint32
	Rdev         uint64 // of a device
	Size         int64  // of a regular file
	Target       string // of a symbolic link
	Atime, Mtime unix.Timespec
	Xattrs       map[string]string
	Flags        uint32 // FS_XFLAG_*, of regular files and directories
	Project      uint32 // likewise

	First  string // the first path of this inode in the walk
	Links  int    // names of this inode in the tree
	Nlink  uint64 // names of this inode anywhere; 0 of a directory
	inode  inode
	Chunks []Chunk  // content of a regular file, without zeros
	Data   []Extent // where the file system says that there is data
	Blocks int64    // bytes that are allocated
}

// Extent is a range of bytes, from Start to before End.
type Extent struct{ Start, End int64 }

// Chunk is the digest of a piece of content that is not all zeros.
type Chunk struct {
	Offset int64
	Sum    [16]byte
}

type inode struct{ dev, ino uint64 }

// Snapshot reads the tree at root, without what is mounted over it. It touches
// no access times. The tree must not change meanwhile.
func Snapshot(root string) (Tree, error) {
	fd, err := openQuietly(root)
	if err != nil {
		return nil, err
	}
	r := &reader{tree: Tree{}, first: map[inode]string{}, buf: make([]byte, chunkSize)}
	if err := walk(fd, r.visit); err != nil {
		return nil, fmt.Errorf("read tree %q: %w", root, err)
	}
	r.countLinks()
	return r.tree, nil
}

// openQuietly opens a directory through a mount of its own, on which nothing
// else is mounted and access times stand still, also those of symbolic links,
// which O_NOATIME does not cover.
func openQuietly(root string) (int, error) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, root, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return -1, &os.PathError{Op: "open tree", Path: root, Err: err}
	}
	attr := &unix.MountAttr{
		Attr_set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOATIME,
		Attr_clr: unix.MOUNT_ATTR__ATIME,
	}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, attr); err != nil {
		unix.Close(fd)
		return -1, &os.PathError{Op: "set mount attributes", Path: root, Err: err}
	}
	defer unix.Close(fd) // a path only
	dir, err := unix.Openat(fd, ".", dirFlags, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open directory", Path: root, Err: err}
	}
	return dir, nil
}

// reader collects entries.
type reader struct {
	tree  Tree
	first map[inode]string
	buf   []byte
}

func (r *reader) visit(dir int, name, path string, st *unix.Stat_t) error {
	e := &Entry{
		Mode: st.Mode, UID: st.Uid, GID: st.Gid, Atime: st.Atim, Mtime: st.Mtim,
		First: path, inode: inode{uint64(st.Dev), st.Ino},
	}
	r.tree[path] = e
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFBLK, unix.S_IFCHR:
		e.Rdev = uint64(st.Rdev)
	}
	if !isDir(st) {
		r.group(e, uint64(st.Nlink))
	}
	if err := r.inside(e, dir, name, st); err != nil {
		return err
	}
	var err error
	e.Xattrs, err = readXattrs(procPath(dir, name))
	return err
}

// group finds the inode's other names.
func (r *reader) group(e *Entry, nlink uint64) {
	e.Nlink = nlink
	if first, found := r.first[e.inode]; found {
		e.First = first
		return
	}
	r.first[e.inode] = e.First
}

func (r *reader) countLinks() {
	for _, e := range r.tree {
		r.tree[e.First].Links++
	}
	for _, e := range r.tree {
		e.Links = r.tree[e.First].Links
	}
}

// inside reads what stat does not tell.
func (r *reader) inside(e *Entry, dir int, name string, st *unix.Stat_t) (err error) {
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		e.Target, err = os.Readlink(procPath(dir, name))
	case unix.S_IFDIR:
		return withFile(dir, name, unix.O_RDONLY|unix.O_DIRECTORY, func(fd int) error {
			e.Flags, e.Project, err = readFlags(fd)
			return err
		})
	case unix.S_IFREG:
		e.Size, e.Blocks = st.Size, st.Blocks*512
		return r.regular(e, dir, name)
	}
	return err
}

// regular reads a file once for all its hard links.
func (r *reader) regular(e *Entry, dir int, name string) error {
	if first := r.tree[e.First]; first != e {
		e.Flags, e.Project = first.Flags, first.Project
		e.Chunks, e.Data = first.Chunks, first.Data
		return nil
	}
	return withFile(dir, name, unix.O_RDONLY, func(fd int) (err error) {
		if e.Flags, e.Project, err = readFlags(fd); err != nil {
			return err
		}
		return r.content(e, fd)
	})
}

func isDir(st *unix.Stat_t) bool { return st.Mode&unix.S_IFMT == unix.S_IFDIR }

func isRegular(st *unix.Stat_t) bool { return st.Mode&unix.S_IFMT == unix.S_IFREG }

func isSymlink(st *unix.Stat_t) bool { return st.Mode&unix.S_IFMT == unix.S_IFLNK }

// procPath leads to name in dir for the system calls without a directory
// descriptor; only for those that do not follow it if it is a symbolic link.
func procPath(dir int, name string) string {
	return fmt.Sprintf("/proc/self/fd/%d/%s", dir, name)
}

func withFile(dir int, name string, flags int, do func(fd int) error) error {
	fd, err := unix.Openat(dir, name, flags|unix.O_NOFOLLOW|unix.O_NOATIME|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return do(fd)
}
