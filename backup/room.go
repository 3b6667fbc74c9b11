package backup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/vzkit/vzkit/internal/undo"
	"github.com/vzkit/vzkit/lifecycle"
	"github.com/vzkit/vzkit/restore"
	"github.com/vzkit/vzkit/restore/memory"
)

// room is where a checkpoint is made. What a command leaves that was killed,
// the next one for the same container removes.
type room struct {
	partial string // what becomes the checkpoint, beside its place
	images  string // that CRIU writes, and what it needs to run
	memory  *memory.Store
	undo    undo.Stack
}

// newRoom makes room for the memory that a container has in use, in bytes, and
// as much again, for what it may still grow.
func newRoom(c *lifecycle.Container, dir string, used uint64) (r *room, err error) {
	r = &room{
		partial: filepath.Join(filepath.Dir(dir), fmt.Sprintf(".%s%s", filepath.Base(dir), partialSuffix(c.ID))),
		images:  filepath.Join(c.Host().Run, "dump", fmt.Sprintf("checkpoint-%d", c.ID)),
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.close())
		}
	}()
	if err := clearPartial(filepath.Dir(dir), c.ID); err != nil {
		return r, err
	}
	if err := r.mkdir(r.partial); err != nil {
		return r, err
	}
	if err := r.mkdir(r.images); err != nil {
		return r, err
	}
	tmpfs := filepath.Join(c.Host().Run, "checkpoint", fmt.Sprint(c.ID))
	if err := unix.Unmount(tmpfs, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err == nil || errors.Is(err, unix.EINVAL) {
		_ = os.Remove(tmpfs)
	}
	store, err := restore.NewStore(tmpfs, 2*used+spareBytes)
	if err != nil {
		return r, err
	}
	r.undo.Push("remove tmpfs", store.Close)
	if r.memory, err = memory.New(store.Dir()); err != nil {
		return r, err
	}
	r.undo.Push("close memory", r.memory.Close)
	return r, nil
}

// partialSuffix ends the names of directories that become checkpoints of a
// container, which begin with a dot.
func partialSuffix(ctid uint32) string { return fmt.Sprintf(".checkpoint-%d", ctid) }

// clearPartial removes what killed commands have left in dir. The container's
// lock is ours, so nobody needs it.
func clearPartial(dir string, ctid uint32) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") && strings.HasSuffix(e.Name(), partialSuffix(ctid)) {
			if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// mkdir makes a directory that is for us alone, and new.
func (r *room) mkdir(dir string) error {
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	r.undo.Push("remove "+dir, func() error { return os.RemoveAll(dir) })
	return nil
}

func (r *room) close() error { return r.undo.Run() }

// seal lets the container's root read the images, and nobody else but root: in
// a user namespace CRIU opens some of them as the container's root when it
// restores.
func seal(dir string, gid int) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() { // linkedDir
			continue
		}
		path := filepath.Join(dir, e.Name())
		if err := errors.Join(os.Chown(path, 0, gid), os.Chmod(path, 0o640)); err != nil {
			return err
		}
	}
	return errors.Join(os.Chown(dir, 0, gid), os.Chmod(dir, 0o710))
}

// syncAll has everything below dir written to the disk, and returns how much
// of it that takes, in bytes.
func syncAll(dir string) (bytes uint64, err error) {
	err = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := f.Sync(); err != nil {
			return err
		}
		var st unix.Stat_t
		err = unix.Fstat(int(f.Fd()), &st)
		bytes += uint64(st.Blocks) * 512
		return err
	})
	return bytes, err
}
