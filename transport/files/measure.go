package files

import (
	"context"

	"golang.org/x/sys/unix"

	"github.com/vzkit/vzkit/internal/fault"
)

// Measure returns what the tree at root occupies: allocated bytes, and inodes,
// the root's included; an inode with several links counts once. It is a
// snapshot of a tree that may be changing. It needs CAP_SYS_ADMIN.
func Measure(ctx context.Context, root string) (bytes, inodes uint64, err error) {
	tree, err := cloneMount(root)
	if err != nil {
		return 0, 0, err
	}
	defer tree.Close()
	fd, err := openDir(int(tree.Fd()), nil)
	if err != nil {
		return 0, 0, pathError("open directory", root, err)
	}
	m := &measure{ctx: ctx, trail: newTrail(fd), seen: make(map[inode]bool)}
	defer m.close()
	if err := m.directory(); err != nil {
		return 0, 0, pathError("read directory", root, err)
	}
	return m.total, m.inodes, nil
}

type inode struct{ dev, ino uint64 }

type measure struct {
	ctx context.Context
	*trail
	seen          map[inode]bool // those with several links
	total, inodes uint64
}

// directory measures the one at the end of the trail.
func (m *measure) directory() error {
	st, err := m.stat(".")
	if err != nil {
		return err
	}
	m.count(&st)
	names, err := m.list()
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := m.child(name); err != nil && !gone(err) {
			return err
		}
	}
	return nil
}

func (m *measure) child(name string) error {
	if err := fault.Ended(m.ctx); err != nil {
		return err
	}
	st, err := m.stat(name)
	if err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		m.count(&st)
		return nil
	}
	if err := m.push(name); err != nil {
		return err
	}
	defer m.pop()
	return m.directory()
}

func (m *measure) count(st *unix.Stat_t) {
	if id := (inode{st.Dev, st.Ino}); st.Nlink > 1 && st.Mode&unix.S_IFMT != unix.S_IFDIR {
		if m.seen[id] {
			return
		}
		m.seen[id] = true
	}
	m.inodes++
	m.total += uint64(st.Blocks) * 512
}
