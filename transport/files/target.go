package files

import (
	"context"
	"errors"
	"io"
	"os"

	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/transport"
	"golang.org/x/sys/unix"
)

// Target is a staging directory that becomes the tree pass by pass. Nothing the
// peer sends makes it touch anything outside.
type Target struct {
	staging   string
	trail     *trail
	levels    []*level // of the trail
	shelf     int      // the directory of what is aside, -1 without one
	shelfName string
	root      *entry    // the latest
	file      *incoming // whose content arrives
	own       *writer   // of the receiving goroutine
	pool      *pool     // of this pass
	passes    int
	stats     Stats
	lost      func(what string, entries uint64)
	sealed    bool  // by Finish
	err       error // of the pass that failed
}

// NewTarget makes the staging directory, or takes over one that is there and
// empty. Until Finish only root may look into it. Errors: fault.Exists if it is
// no directory or not empty, fault.NoSpace, fault.Copy.
func NewTarget(staging string) (*Target, error) {
	err := os.Mkdir(staging, 0o700)
	created := err == nil
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, pathError("create directory", staging, err)
	}
	t, err := openTarget(staging)
	if err != nil && created {
		os.Remove(staging)
	}
	return t, err
}

func openTarget(staging string) (*Target, error) {
	fd, err := unix.Open(staging, dirFlags|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if gone(err) {
		return nil, occupied(staging)
	}
	if err != nil {
		return nil, pathError("open directory", staging, err)
	}
	t := &Target{staging: staging, trail: newTrail(fd), shelf: -1}
	t.own = newWriter(&shared{root: fd})
	if err := t.claim(); err != nil {
		t.trail.close()
		return nil, err
	}
	return t, nil
}

// claim checks that the staging directory is empty and closes it to others.
func (t *Target) claim() error {
	names, err := t.trail.list()
	if err != nil {
		return pathError("read directory", t.staging, err)
	}
	if len(names) > 0 {
		return occupied(t.staging)
	}
	if err := unix.Fchmod(t.trail.fds[0], 0o700); err != nil {
		return pathError("set mode of", t.staging, err)
	}
	return nil
}

func occupied(staging string) error {
	return fault.New(fault.Exists, "staging directory %q is not empty", staging).
		WithHint("Remove what an earlier attempt left there, and try again.")
}

// UseBase lets files come from the tree beneath the directory root. It is read
// only, and stays the caller's. It comes before the first Receive.
func (t *Target) UseBase(root *os.File) { t.own.base = root }

// SetLossy allows what the file system cannot keep to be left out. Finish calls
// lost for each kind with the number of entries that it was left out of.
// Without SetLossy that is an error. It comes before the first Receive.
func (t *Target) SetLossy(lost func(what string, entries uint64)) {
	t.lost = lost
	t.own.losses.allow = true
}

// Receive takes one pass in, up to and including files-end. first is the
// payload of the files-begin frame that the caller has read. After an error the
// Target is good for Discard and Close only. Errors: fault.Protocol for what no
// honest sender sends, fault.NoSpace if disk or quota is full, fault.Copy if
// the staging directory cannot be written otherwise, fault.Interrupted if ctx
// is done, transport.ErrAbort, and those of r. Cancelling ctx does not end a ReadFrame
// that waits: close the connection for that.
func (t *Target) Receive(ctx context.Context, r transport.FrameReader, first []byte) (Stats, error) {
	if t.err != nil {
		return Stats{}, fault.New(fault.Copy, "use target after error: %w", t.err)
	}
	t.stats = Stats{}
	t.err = t.pass(ctx, r, first)
	return t.stats, t.err
}

// pass begins a pass, and leaves no goroutine when it ends.
func (t *Target) pass(ctx context.Context, r transport.FrameReader, first []byte) error {
	pass, sums, err := parseBegin(first)
	if err != nil {
		return err
	}
	t.passes++
	if pass != t.passes {
		return hostile("pass %d in place of %d", pass, t.passes)
	}
	if err := t.prepare(sums); err != nil {
		return err
	}
	err = t.receive(ctx, r)
	t.pool.stop(err == nil || errors.Is(err, io.EOF)) // what came before may be why it ended
	if first := t.pool.failed(); first != nil && first != errStopped {
		return first
	}
	return err
}

// prepare makes all ready for a pass whose sums have the seed.
func (t *Target) prepare(sums uint64) error {
	if err := t.unseal(); err != nil {
		return err
	}
	st, err := t.trail.stat(".")
	if err != nil {
		return pathError("read", t.staging, err)
	}
	t.own.seed = sums
	t.levels = []*level{newLevel(&st, "")}
	t.pool = newPool(nil)
	t.pool.writer = func() *writer {
		w := newWriter(t.own.shared)
		w.pool = t.pool
		return w
	}
	t.own.pool = t.pool
	return nil
}

func (t *Target) receive(ctx context.Context, r transport.FrameReader) error {
	for {
		typ, payload, err := transport.ReadWithin(ctx, r)
		if err != nil {
			return err
		}
		if typ == transport.TypeFilesEnd {
			return t.end(payload)
		}
		if err := t.frame(typ, payload); err != nil {
			return err
		}
		if err := t.pool.failed(); err != nil {
			return err
		}
	}
}

// frame takes one frame in that does not end the pass.
func (t *Target) frame(typ transport.Type, payload []byte) error {
	switch {
	case typ == transport.TypeFileData || typ == transport.TypeFileCopy || typ == transport.TypeFileHole:
		return t.content(typ, payload)
	case t.file != nil:
		return hostile("file %s is incomplete", quoted(t.file.path))
	case typ == transport.TypeFileEntry:
		return t.entry(payload)
	case typ == transport.TypeFileDelete:
		return t.delete(string(payload))
	case typ == transport.TypeFileBatch:
		return t.batch(payload)
	case typ == transport.TypeFileAside:
		return t.aside(payload)
	case typ == transport.TypeFileBack:
		return t.back(payload)
	}
	return hostile("frame %v within a pass", typ)
}

// end leaves all directories and compares the counts.
func (t *Target) end(payload []byte) error {
	if t.file != nil {
		return hostile("file %s is incomplete", quoted(t.file.path))
	}
	var want passEnd
	if err := transport.DecodeJSON(transport.TypeFilesEnd, payload, &want); err != nil {
		return err
	}
	if err := t.enter(nil); err != nil {
		return err
	}
	if err := t.pool.barrier(); err != nil {
		return err
	}
	t.stats.Entries += t.pool.stats.Entries
	t.stats.Sent = t.stats.Entries
	t.stats.Bytes += t.pool.stats.Bytes
	if got := t.stats.end(); got != want {
		return hostile("pass counts %v, announced %v", got, want)
	}
	return t.clearAside()
}

// Finish gives the staging directory itself the owner, mode, times and
// attributes of the tree's root, and makes entries immutable and append-only
// that are to be. It comes after the last pass; until then nobody but root gets
// in. A pass after all takes those two flags off again.
func (t *Target) Finish() error {
	if t.root == nil || t.err != nil {
		return fault.New(fault.Copy, "finish incomplete tree")
	}
	if err := t.own.describe(t.trail.fds[0], t.root, nil); err != nil {
		return err
	}
	t.sealed = true
	if err := t.own.seals.apply(t.trail.fds[0], true, t.loseFlags); err != nil {
		return err
	}
	if t.lost != nil {
		t.own.losses.report(t.lost)
	}
	return nil
}

func (t *Target) loseFlags(path string, err error) error {
	return t.own.losses.lose(lossFlags, path, err)
}

// SealRoot makes the tree's root itself immutable or append-only if it is to
// be. It comes after Finish and after the rename that such a directory refuses.
func (t *Target) SealRoot() error {
	if t.root == nil || t.root.flags&sealing == 0 {
		return nil
	}
	t.sealed = true
	return pathErrorIf("set flags of", t.staging, setSeal(t.trail.fds[0], t.root.flags&sealing))
}

// unseal undoes what Finish and SealRoot made immutable or append-only.
func (t *Target) unseal() error {
	if !t.sealed {
		return nil
	}
	t.sealed = false
	root := t.trail.fds[0]
	if err := setSeal(root, 0); err != nil {
		return pathError("set flags of", t.staging, err)
	}
	return t.own.seals.apply(root, false, t.loseFlags)
}

// Sync returns when all that arrived is on the disk (syncfs(2)).
func (t *Target) Sync() error {
	if err := unix.Syncfs(t.trail.fds[0]); err != nil {
		return pathError("sync", t.staging, err)
	}
	return nil
}

// Close lets go of the staging directory and leaves in it what has come so far.
func (t *Target) Close() error {
	t.closeFile()
	err := t.clearAside()
	t.trail.close()
	return err
}

// Discard removes the staging directory with all in it, and closes the Target.
// It is the undo of NewTarget.
func (t *Target) Discard() error {
	defer t.Close()
	if err := errors.Join(t.unseal(), t.clearAside()); err != nil {
		return err
	}
	fd, err := openDir(t.trail.fds[0], nil)
	if err != nil {
		return pathError("open directory", t.staging, err)
	}
	tree := newTrail(fd)
	defer tree.close()
	if err := tree.empty(); err != nil {
		return pathError("empty directory", t.staging, err)
	}
	if err := os.Remove(t.staging); err != nil {
		return pathError("remove directory", t.staging, err)
	}
	return nil
}
