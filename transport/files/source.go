package files

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/vzkit/vzkit/internal/fault"
	"golang.org/x/sys/unix"
)

// Source is the tree to be moved, and what the receiver has of it.
type Source struct {
	tree *os.File // the root in a mount of its own, see cloneMount
	root *node
	out  *buffers
	err  error // of the pass that failed
}

// PassOptions describe one pass.
type PassOptions struct {
	Pass   int  // from 1
	Frozen bool // nothing writes: an entry that vanishes is an error

	// Always, if set, names regular files whose content goes in any case:
	// those that are open for writing or mapped shared and writable, whose
	// time stamps may lag behind. Both numbers are those of stat(2).
	Always func(dev, ino uint64) bool

	// Progress, if set, is called after each frame. It must be quick.
	Progress func(Stats)
}

// NewSource opens the directory root; nothing has been sent of it yet. The file
// system stays in use until Close. It needs CAP_SYS_ADMIN. Errors: fault.Copy.
func NewSource(root string) (*Source, error) {
	tree, err := cloneMount(root)
	if err != nil {
		return nil, err
	}
	return &Source{tree: tree, root: &node{}, out: newBuffers()}, nil
}

// Close lets go of the tree.
func (s *Source) Close() error { return s.tree.Close() }

// Pass sends what has changed since the Pass before, everything the first time:
// a files-begin frame up to and including files-end. It does not wait for
// files-done. After an error the receiver's state is unknown and the Source is
// of no further use. Errors: fault.Copy for the tree, fault.Interrupted if ctx
// is done, and those of w.
func (s *Source) Pass(ctx context.Context, w FrameWriter, o PassOptions) (Stats, error) {
	if s.err != nil {
		return Stats{}, fault.New(fault.Copy, "use source after error: %w", s.err)
	}
	out := &sender{ctx: ctx, w: w, PassOptions: o, buffers: s.out}
	s.err = s.pass(out)
	return out.stats, s.err
}

func (s *Source) pass(out *sender) error {
	fd, err := openDir(int(s.tree.Fd()), nil)
	if err != nil {
		return pathError("open directory", "", err)
	}
	scan := &scanner{sender: out, trail: newTrail(fd), links: make(map[inode]leader)}
	defer scan.close()
	if err := out.begin(); err != nil {
		return err
	}
	if err := scan.root(s.root); err != nil {
		return err
	}
	return out.end()
}

// cloneMount opens the directory root through a mount of its own that is
// attached nowhere, read-only, and shows neither what is mounted over the tree
// nor device nodes; it does not touch access times (open_tree(2),
// mount_setattr(2)).
func cloneMount(root string) (*os.File, error) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, root, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return nil, pathError("open tree", root, err)
	}
	tree := os.NewFile(uintptr(fd), root)
	if err := hardenMount(fd); err != nil {
		tree.Close()
		return nil, pathError("open tree", root, err)
	}
	return tree, nil
}

func hardenMount(fd int) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return unix.ENOTDIR
	}
	attr := &unix.MountAttr{
		Attr_set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOATIME,
		Attr_clr: unix.MOUNT_ATTR__ATIME,
	}
	err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, attr)
	if err == nil || errors.Is(err, unix.ENOSYS) { // Linux before 5.12
		return nil
	}
	return fmt.Errorf("set mount attributes: %w", err)
}
