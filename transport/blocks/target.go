package blocks

import (
	"context"
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/transport"
)

// backlog is how much may wait in the page cache before it is on its way to the
// disk, in bytes: whoever mounts the image waits for all of it.
const backlog = 32 << 20

// Target is the file that becomes the image. Nothing that the peer sends is
// written anywhere else.
type Target struct {
	file    *os.File
	size    int64
	passes  int
	stats   Stats
	waiting int // bytes that are not on their way to the disk
	syncing chan error
	ended   bool  // the last pass has come
	err     error // of the pass that failed
}

// NewTarget makes the file name, which must not exist, in the directory dir. It
// will have size bytes; the caller has found that they are not too many.
func NewTarget(dir *os.File, name string, size int64) (*Target, error) {
	if size <= 0 || size%Block != 0 {
		return nil, hostile("image of %d bytes", size)
	}
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, imageError("create", name, err)
	}
	t := &Target{file: os.NewFile(uintptr(fd), name), size: size}
	if err := t.file.Truncate(size); err != nil {
		return nil, errors.Join(imageError("set size of", name, err), t.Close())
	}
	return t, nil
}

// Receive takes one pass in, up to and including blocks-end. first is the
// payload of the blocks-begin frame that the caller has read. After an error the
// Target is good for Close only. Cancelling ctx does not end a ReadFrame that
// waits: close the connection for that.
func (t *Target) Receive(ctx context.Context, r transport.FrameReader, first []byte) (Stats, error) {
	if t.err != nil {
		return Stats{}, fault.New(fault.Copy, "use target after error: %w", t.err)
	}
	t.stats = Stats{}
	t.err = t.pass(ctx, r, first)
	return t.stats, t.err
}

func (t *Target) pass(ctx context.Context, r transport.FrameReader, first []byte) error {
	var begin passBegin
	if err := transport.DecodeJSON(transport.TypeBlocksBegin, first, &begin); err != nil {
		return err
	}
	t.passes++
	if begin.Pass != t.passes || begin.Size != t.size || t.ended {
		return hostile("pass %d of an image of %d bytes in place of %d of %d", begin.Pass, begin.Size, t.passes, t.size)
	}
	for {
		typ, payload, err := transport.ReadWithin(ctx, r)
		if err != nil {
			return err
		}
		if typ == transport.TypeBlocksEnd {
			return t.end(begin, payload)
		}
		if err := t.frame(typ, payload); err != nil {
			return err
		}
	}
}

// frame takes one frame in that does not end the pass.
func (t *Target) frame(typ transport.Type, payload []byte) error {
	switch typ {
	case transport.TypeBlocksData:
		e, b, err := parseData(payload, t.size)
		if err != nil {
			return err
		}
		t.stats.Data += uint64(e.length)
		return t.write(e.offset, b)
	case transport.TypeBlocksHole:
		e, err := parseHole(payload, t.size)
		if err != nil {
			return err
		}
		t.stats.Holes += uint64(e.length)
		return t.punch(e)
	}
	return hostile("frame %v within a pass", typ)
}

func (t *Target) write(at int64, b []byte) error {
	if _, err := t.file.WriteAt(b, at); err != nil {
		return imageError("write", t.file.Name(), err)
	}
	if t.waiting += len(b); t.waiting < backlog {
		return nil
	}
	t.waiting = 0
	if err := unix.SyncFileRange(int(t.file.Fd()), 0, 0, unix.SYNC_FILE_RANGE_WRITE); err != nil {
		return imageError("write out", t.file.Name(), err)
	}
	return nil
}

// punch makes a hole, or zeros where the file system has no holes.
func (t *Target) punch(e extent) error {
	err := unix.Fallocate(int(t.file.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, e.offset, e.length)
	if err == nil {
		return nil
	}
	if !errors.Is(err, unix.EOPNOTSUPP) {
		return imageError("make a hole in", t.file.Name(), err)
	}
	zeros := make([]byte, min(e.length, maxRun))
	for at := e.offset; at < e.offset+e.length; at += int64(len(zeros)) {
		if err := t.write(at, zeros[:min(int64(len(zeros)), e.offset+e.length-at)]); err != nil {
			return err
		}
	}
	return nil
}

// end compares the counts, and puts what came on the disk: whoever mounts the
// image waits for that. If there is no time, that goes on beside what follows.
func (t *Target) end(begin passBegin, payload []byte) error {
	var want passEnd
	if err := transport.DecodeJSON(transport.TypeBlocksEnd, payload, &want); err != nil {
		return err
	}
	if got := t.stats.end(); got != want {
		return hostile("pass counts %v, announced %v", got, want)
	}
	t.ended = begin.Frozen
	switch {
	case begin.Frozen: // it is mounted, or synced, now
		return nil
	case begin.Hurry && t.syncing == nil:
		t.syncing = make(chan error, 1)
		go func() { t.syncing <- t.file.Sync() }()
		return nil
	}
	return t.Sync()
}

// Finish tells whether the image is complete: it comes after the last pass.
func (t *Target) Finish() error {
	if !t.ended || t.err != nil {
		return fault.New(fault.Copy, "finish incomplete image")
	}
	return nil
}

// Sync returns when all that arrived is on the disk (fsync(2)).
func (t *Target) Sync() error {
	var err error
	if t.syncing != nil {
		err = <-t.syncing
		t.syncing = nil
	}
	if err = errors.Join(err, t.file.Sync()); err != nil {
		return imageError("sync", t.file.Name(), err)
	}
	return nil
}

// Close lets go of the file and leaves it as it is.
func (t *Target) Close() error { return t.file.Close() }
