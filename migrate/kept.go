package migrate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"

	"github.com/vzkit/vzkit/lifecycle"
	"github.com/vzkit/vzkit/lifecycle/image"
	"github.com/vzkit/vzkit/transport/files"
)

// What may be kept of a container that is not here.
const (
	keptGone    = "kept"    // its private area, by -r no when it left
	keptPartial = "partial" // what a transfer with --keep-dst that failed had brought
)

// kept is an area that a migration has left on purpose. It is no container: it
// is a base for the next migration of the same CTID to this host, which takes
// its place. The record says which directory it is, since others may have put
// something of their own there: that is not ours to replace.
type kept struct {
	Path   string           `json:"path"`
	Layout lifecycle.Layout `json:"layout"`
	Inode  uint64           `json:"inode"`
	Born   int64            `json:"born"` // ns since 1970; inode numbers are used again
}

func keptPath(h *lifecycle.Host, ctid uint32, what string) string {
	return filepath.Join(h.Lib, "handover", fmt.Sprintf("%d.%s", ctid, what))
}

// keep notes that the directory at path, an area of that layout, is kept.
func keep(h *lifecycle.Host, ctid uint32, what, path string, layout lifecycle.Layout) error {
	k, err := look(path)
	k.Layout = layout
	record := keptPath(h, ctid, what)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(record), 0o755)
	}
	if err != nil {
		return fmt.Errorf("note area that is kept: %w", err)
	}
	text, err := json.Marshal(k)
	if err != nil {
		return err
	}
	return renameio.WriteFile(record, append(text, '\n'), 0o644)
}

// look tells which directory is at path.
func look(path string) (kept, error) {
	k := kept{Path: path}
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_TYPE|unix.STATX_INO|unix.STATX_BTIME, &st)
	if err == nil && st.Mode&unix.S_IFMT != unix.S_IFDIR {
		err = unix.ENOTDIR
	}
	if err != nil {
		return k, &fs.PathError{Op: "statx", Path: path, Err: err}
	}
	k.Inode = st.Ino
	if st.Mask&unix.STATX_BTIME != 0 {
		k.Born = st.Btime.Sec*1e9 + int64(st.Btime.Nsec)
	}
	return k, nil
}

// findKept returns what is kept of container ctid and still there, or nil.
func findKept(h *lifecycle.Host, ctid uint32, what string) *kept {
	var k kept
	text, err := os.ReadFile(keptPath(h, ctid, what))
	if err != nil || json.Unmarshal(text, &k) != nil {
		return nil
	}
	now, err := look(k.Path)
	if err != nil || now.Inode != k.Inode || now.Born != k.Born {
		return nil
	}
	return &k
}

// open opens the area as a base. The caller has the container's lock.
func (k *kept) open(ctx context.Context) (*files.Base, error) {
	if k.Layout != lifecycle.LayoutImage {
		return files.OpenBase(k.Path)
	}
	i := image.Image{Dir: k.Path}
	dir, err := i.Attach(ctx)
	if err != nil {
		return nil, err
	}
	b, err := files.OpenBase(dir) // which needs no name any more
	return b, errors.Join(err, i.Detach())
}

// forget removes the record of what was kept.
func forget(h *lifecycle.Host, ctid uint32, what string) error {
	err := os.Remove(keptPath(h, ctid, what))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
