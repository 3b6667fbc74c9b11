package backup

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/checkpoint-restore/go-criu/v7/crit/images/fdinfo"
	remap "github.com/checkpoint-restore/go-criu/v7/crit/images/remap-file-path"
	"golang.org/x/sys/unix"

	"github.com/vzkit/vzkit/internal/fault"
)

// linkedDir is the directory of a checkpoint that has files which CRIU expects
// in the container's tree when it restores.
const linkedDir = "root"

// copyLinked copies the files that a process has open under a name that is
// gone, while they have another one. CRIU has linked them into the tree by a
// name of its own, and removes it when the dump is over. Files that have no
// name at all are in CRIU's images.
func (k *checkpoint) copyLinked() error {
	names, err := linkedNames(k.room.images)
	if err != nil || len(names) == 0 {
		return err
	}
	root, err := unix.Open(fmt.Sprintf("/proc/%d/root", k.c.Init()), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open root of container: %w", err)
	}
	defer unix.Close(root)
	for _, name := range names {
		if err := copyLink(root, name, filepath.Join(k.room.partial, linkedDir)); err != nil {
			return fault.New(fault.Checkpoint, "copy open file %q: %w", name, err)
		}
	}
	return nil
}

// linkedNames are the names by which CRIU will look for such files.
func linkedNames(dir string) ([]string, error) {
	entries, err := decode(filepath.Join(dir, "remap-fpath.img"), &remap.RemapFilePathEntry{})
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	linked := map[uint32]bool{}
	for _, m := range entries {
		if e := m.(*remap.RemapFilePathEntry); e.GetRemapType() == remap.RemapType_LINKED {
			linked[e.GetRemapId()] = true
		}
	}
	if len(linked) == 0 {
		return nil, nil
	}
	files, err := decode(filepath.Join(dir, "files.img"), &fdinfo.FileEntry{})
	var names []string
	for _, m := range files {
		if e := m.(*fdinfo.FileEntry); e.GetReg() != nil && linked[e.GetId()] {
			names = append(names, e.GetReg().GetName())
			delete(linked, e.GetId())
		}
	}
	if err == nil && len(linked) > 0 {
		err = errors.New("images do not name a file that was linked")
	}
	return names, err
}

// copyLink copies a file out of the container's root to its place below dir.
// Directories on the way are like the container's, so that copying all of it
// back changes nothing else.
func copyLink(root int, name, dir string) error {
	name = filepath.Clean("/" + name)
	if err := copyParents(root, filepath.Dir(name), dir); err != nil {
		return err
	}
	in, st, err := openIn(root, name, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return err
	}
	defer in.Close()
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return errors.New("not a regular file")
	}
	out, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	if _, err := io.Copy(out, in); err != nil {
		return err
	}
	return imitate(out.Name(), st)
}

// copyParents makes the directories down to path, which begins with "/".
func copyParents(root int, path, dir string) error {
	if path != "/" {
		if err := copyParents(root, filepath.Dir(path), dir); err != nil {
			return err
		}
	}
	in, st, err := openIn(root, path, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	in.Close()
	to := filepath.Join(dir, path)
	if err := os.Mkdir(to, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return imitate(to, st)
}

// imitate gives a copy the owner and mode of what it is a copy of.
func imitate(path string, st *unix.Stat_t) error {
	return errors.Join(os.Lchown(path, int(st.Uid), int(st.Gid)), unix.Chmod(path, st.Mode&0o7777))
}

// openIn opens what has that name in the container: no link leads out of its
// root.
func openIn(root int, name string, flags uint64) (*os.File, *unix.Stat_t, error) {
	fd, err := unix.Openat2(root, name, &unix.OpenHow{
		Flags: flags | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return nil, nil, err
	}
	f := os.NewFile(uintptr(fd), name)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, &st, nil
}
