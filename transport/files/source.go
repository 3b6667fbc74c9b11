package files

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"time"

	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/transport/files/watch"
	"golang.org/x/sys/unix"
)

// Source is the tree to be moved, and what the receiver has of it.
type Source struct {
	tree      *os.File // the root in a mount of its own, see cloneMount
	root      *directory
	inodes    inodes
	copies    map[copyKey]*node // summed files, by what they have
	watch     *watch.Watch      // nil: every pass looks at everything
	unwatched error             // why
	grain     time.Duration     // how long a change may go on unseen
	seed      uint64
	block     int64 // least size of summed blocks
	once      bool
	again     []uint64 // directories to be looked at once more
	err       error    // of the pass that failed
}

// copyKey is what a file and its copies have in common.
type copyKey struct {
	size  int64
	first uint64 // sum of its first block
}

// SourceOptions describe the passes to come.
type SourceOptions struct {
	Once bool  // there is one pass: nothing has to be seen or summed for another
	Size int64 // about how many bytes the tree has
}

// PassOptions describe one pass.
type PassOptions struct {
	Pass   int    // from 1
	All    bool   // look at everything, also where changes are watched
	Frozen bool   // nothing writes: an entry that vanishes is an error
	More   bool   // though frozen, this is not the last pass
	Codec  string // packs content: what package pack takes

	// Writers are regular files, by device and inode as in stat(2), that may be
	// written without anybody being told: those that are open for writing,
	// with true those that are mapped shared, whose time stamps may lag behind
	// and whose content a frozen pass looks at in any case.
	Writers map[[2]uint64]bool

	// Base, if set, is what the receiver has that files may be made of.
	Base *SourceBase

	// Progress, if set, is called now and then, by one goroutine at a time. It
	// must be quick.
	Progress func(Stats)
}

// NewSource opens the directory root; nothing has been sent of it yet. The file
// system stays in use until Close. It needs CAP_SYS_ADMIN. Errors: fault.Copy.
func NewSource(root string, o SourceOptions) (*Source, error) {
	tree, err := cloneMount(root)
	if err != nil {
		return nil, err
	}
	n := &node{missing: true}
	n.dir = &directory{node: n}
	s := &Source{
		tree: tree, root: n.dir, copies: map[copyKey]*node{},
		seed: rand.Uint64(), once: o.Once, block: blockFor(o.Size, allSums), grain: unwatchedGrain,
	}
	if !o.Once {
		s.watch, s.unwatched = watch.Open(tree)
	}
	if s.watch != nil {
		s.grain = watchedGrain
	}
	return s, nil
}

// Watched is nil if later passes look only at what was seen to change, else the
// reason why they look at everything.
func (s *Source) Watched() error { return s.unwatched }

// Close lets go of the tree.
func (s *Source) Close() error {
	var err error
	if s.watch != nil {
		err = s.watch.Close()
		s.watch = nil
	}
	return errors.Join(err, s.tree.Close())
}

// Pass sends what has changed since the Pass before, everything the first time:
// a files-begin frame up to and including files-end. It does not wait for
// files-done. After an error the receiver's state is unknown and the Source is
// of no further use. Errors: fault.Copy for the tree, fault.Interrupted if ctx
// is done, and those of w.
func (s *Source) Pass(ctx context.Context, w FrameWriter, o PassOptions) (stats Stats, err error) {
	if s.err != nil {
		return Stats{}, fault.New(fault.Copy, "use source after error: %w", s.err)
	}
	stats, s.err = s.pass(ctx, w, o)
	return stats, s.err
}

func (s *Source) pass(ctx context.Context, w FrameWriter, o PassOptions) (Stats, error) {
	changes, all := s.changes(o)
	fd, err := openDir(int(s.tree.Fd()), nil)
	if err != nil {
		return Stats{}, pathError("open directory", "", err)
	}
	out := &sender{pipeline: newPipeline(ctx, w, o), PassOptions: o, seed: s.seed, own: newWorker(nil)}
	scan := &scanner{sender: out, trail: newTrail(fd), src: s, written: changes.Files, aside: map[uint64]*apart{}, sent: map[uint64]arrival{}}
	out.written = scan.apply
	first := s.root.node.missing
	defer func() { scan.trail.close() }()
	if err = out.begin(); err == nil && !all {
		all, err = scan.tracked(changes)
	}
	if err == nil && all {
		err = scan.everything()
	}
	if err == nil && !first {
		err = scan.relink()
	}
	if err == nil {
		err = scan.sendPending(len(scan.pending))
	}
	scan.dropPending()
	if err != nil {
		out.cancel(err)
	}
	stats, err := out.finish()
	stats.Tracked = !all
	if err == nil {
		scan.settle()
	}
	return stats, err
}

// changes are what a pass has to look at; all: everything. A watch that has come
// to its end is done without.
func (s *Source) changes(o PassOptions) (c watch.Changes, all bool) {
	if s.watch == nil {
		return c, true
	}
	c, lost, err := s.watch.Take(func(dir uint64) bool {
		n := s.inodes.find(dir)
		return n != nil && n.dir != nil
	})
	if err != nil {
		s.unwatched = errors.Join(err, s.watch.Close())
		s.watch, s.grain = nil, unwatchedGrain
	}
	return c, lost || err != nil || o.All || s.root.node.missing
}

// everything looks at the whole tree.
func (s *scanner) everything() error {
	s.deep = true
	if err := s.directory(s.src.root); err != nil {
		return pathError("read directory", "", err)
	}
	return nil
}

// settle keeps what the pass has learnt.
func (s *scanner) settle() {
	for _, a := range s.aside {
		if a.node.dir != nil {
			a.node.dir.each(s.src.inodes.drop)
		}
	}
	for _, f := range s.larges {
		if s.src.once {
			break
		}
		n := f.node
		if f.shrank.Load() {
			n.digest = 0
			continue
		}
		if n.linked { // it may be written by another name
			continue
		}
		n.sums = f.sums
		if len(f.sums.sums) > 0 {
			s.src.copies[copyKey{f.size, f.sums.sums[0]}] = n
		}
	}
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
