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
	staging string
	trail   *trail
	leaving []leaving // what each level of the trail gets when it is left
	root    *entry    // the latest
	file    *incoming // whose content arrives
	xattrs  *xattrIO
	passes  int
	stats   Stats
	err     error // of the pass that failed
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
	t := &Target{staging: staging, trail: newTrail(fd), xattrs: newXattrIO()}
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

// Receive takes one pass in, up to and including files-end. first is the
// payload of the files-begin frame that the caller has read. After an error the
// Target is good for Discard and Close only. Errors: fault.Protocol for what no
// honest sender sends, fault.NoSpace if disk or quota is full, fault.Copy if
// the staging directory cannot be written otherwise, fault.Interrupted if ctx
// is done, ErrAbort, and those of r. Cancelling ctx does not end a ReadFrame
// that waits: close the connection for that.
func (t *Target) Receive(ctx context.Context, r FrameReader, first []byte) (Stats, error) {
	if t.err != nil {
		return Stats{}, fault.New(fault.Copy, "use target after error: %w", t.err)
	}
	t.stats = Stats{}
	t.err = t.receive(ctx, r, first)
	return t.stats, t.err
}

func (t *Target) receive(ctx context.Context, r FrameReader, first []byte) error {
	var begin passBegin
	if err := decodeJSON(transport.TypeFilesBegin, first, &begin); err != nil {
		return err
	}
	t.passes++
	if begin.Pass != t.passes {
		return hostile("pass %d in place of %d", begin.Pass, t.passes)
	}
	for {
		if err := interrupted(ctx); err != nil {
			return err
		}
		typ, payload, err := r.ReadFrame()
		if errors.Is(err, io.EOF) {
			err = fault.New(fault.Connect, "peer closed within a pass: %w", err)
		}
		if err != nil {
			return fault.Wrap(fault.Copy, err)
		}
		if typ == transport.TypeFilesEnd {
			return t.end(payload)
		}
		if err := t.frame(typ, payload); err != nil {
			return err
		}
	}
}

// frame takes one frame in that does not end the pass.
func (t *Target) frame(typ transport.Type, payload []byte) error {
	switch {
	case typ == transport.TypeAbort:
		return ErrAbort
	case typ == transport.TypeFileData:
		return t.data(payload)
	case t.file != nil:
		return hostile("file %s is incomplete", quoted(t.file.path))
	case typ == transport.TypeFileEntry:
		return t.entry(payload)
	case typ == transport.TypeFileDelete:
		return t.delete(string(payload))
	}
	return hostile("frame %v within a pass", typ)
}

// end leaves all directories and compares the counts.
func (t *Target) end(payload []byte) error {
	if t.file != nil {
		return hostile("file %s is incomplete", quoted(t.file.path))
	}
	var want passEnd
	if err := decodeJSON(transport.TypeFilesEnd, payload, &want); err != nil {
		return err
	}
	if got := t.stats.end(); got != want {
		return hostile("pass counts %v, announced %v", got, want)
	}
	return t.enter(nil)
}

// Finish gives the staging directory itself the owner, mode, times and
// attributes of the tree's root. It comes after the last pass; until then
// nobody but root gets in.
func (t *Target) Finish() error {
	if t.root == nil || t.err != nil {
		return fault.New(fault.Copy, "finish incomplete tree")
	}
	return t.describe(".", t.root)
}

// Sync returns when all that arrived is on the disk (syncfs(2)).
func (t *Target) Sync() error {
	if err := unix.Syncfs(t.trail.fds[0]); err != nil {
		return pathError("sync", t.staging, err)
	}
	return nil
}

// Close lets go of the staging directory and leaves it as it is.
func (t *Target) Close() error {
	t.closeFile()
	t.trail.close()
	return nil
}

// Discard removes the staging directory with all in it, and closes the Target.
// It is the undo of NewTarget.
func (t *Target) Discard() error {
	defer t.Close()
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
