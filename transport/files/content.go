package files

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/transport"
	"github.com/zeebo/xxh3"
	"golang.org/x/sys/unix"
)

// copySize bounds the bytes that one file-copy frame means.
const copySize = 1 << 20

// errNotRegular is about a path that must lead to a regular file.
var errNotRegular = errors.New("no regular file")

// incoming is a regular file whose content arrives.
type incoming struct {
	*entry
	fd    int
	old   int64   // with basisSame, its size before
	end   int64   // of the last run
	from  *origin // of file-copy, nil without
	birth *birth  // nil if the file was there before
}

// regular begins a regular file in the directory at the end of the trail.
// Without basisSame it makes a new inode: the old one may have links that the
// file no longer shares.
func (t *Target) regular(name string, e *entry) error {
	f := &incoming{entry: e}
	t.file = f
	f.fd = -1
	if e.basis == basisSame {
		return t.reopen(f, name)
	}
	if e.copied() {
		if err := t.pool.barrier(); err != nil {
			return err
		}
		var err error
		if f.from, err = t.own.openFrom(e); err != nil {
			return err
		}
	}
	var err error
	if f.birth, err = t.birth(); err != nil {
		return err
	}
	return t.replace(name, func(dir int) (err error) {
		f.fd, err = createFile(dir, e)
		return err
	})
}

// reopen opens the file that is there and cuts it to size.
func (t *Target) reopen(f *incoming, name string) error {
	if err := t.pool.settle(t.here().id); err != nil {
		return err
	}
	dir, err := t.trail.fd()
	if err != nil {
		return err
	}
	if f.fd, f.old, err = openRegular(dir, name, unix.O_WRONLY); err != nil {
		return noFile(f.path, err)
	}
	if f.old == f.size {
		return nil
	}
	return unix.Ftruncate(f.fd, f.size)
}

// noFile is the error about a file that should have been at the path.
func noFile(path string, err error) error {
	if gone(err) || errors.Is(err, errNotRegular) {
		return hostile("%s should be there: %v", quoted(path), err)
	}
	return err
}

// openRegular opens what is at the path beneath the directory root if it is a
// regular file, and returns its size. Opening anything else, a device, could do
// something.
func openRegular(root int, path string, flags int) (fd int, size int64, err error) {
	if parts := strings.Split(path, "/"); len(path) >= unix.PathMax {
		last := len(parts) - 1
		if root, err = openDir(root, parts[:last]); err != nil {
			return -1, 0, err
		}
		defer unix.Close(root)
		path = parts[last]
	}
	handle, err := openBeneath(root, path, unix.O_PATH, 0)
	if err != nil {
		return -1, 0, err
	}
	defer unix.Close(handle)
	var st unix.Stat_t
	if err := unix.Fstat(handle, &st); err != nil {
		return -1, 0, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return -1, 0, errNotRegular
	}
	fd, err = unix.Open(fmt.Sprintf("/proc/self/fd/%d", handle), flags|unix.O_CLOEXEC, 0)
	return fd, st.Size, err
}

// run checks that size bytes at offset are where the next run may be, and notes
// them.
func (f *incoming) run(offset, size uint64) error {
	if offset < uint64(f.end) || offset > uint64(f.size) || size > uint64(f.size)-offset {
		return hostile("data of %s at %d is out of place", quoted(f.path), offset)
	}
	f.end = int64(offset + size)
	return nil
}

// content takes one of the frames in that a file's content is of.
func (t *Target) content(typ transport.Type, payload []byte) error {
	f := t.file
	if f == nil {
		return hostile("content without a file")
	}
	c := &cursor{rest: payload}
	offset := c.number(8)
	if c.short {
		return hostile("content of %s is cut short", quoted(f.path))
	}
	var err error
	switch typ {
	case transport.TypeFileData:
		err = t.data(f, offset, c.rest)
	case transport.TypeFileCopy:
		err = t.copy(f, offset, c)
	default:
		err = f.hole(offset, c)
	}
	return pathErrorIf("write", f.path, err)
}

// data takes a file-data frame in.
func (t *Target) data(f *incoming, offset uint64, run []byte) error {
	if len(run) == 0 && offset != uint64(f.size) {
		return hostile("file %s ends at %d", quoted(f.path), offset)
	}
	end := f.end
	if err := f.run(offset, uint64(len(run))); err != nil {
		return err
	}
	if len(run) == 0 {
		return t.complete(f, end)
	}
	t.stats.Bytes += uint64(len(run))
	return writeAt(f.fd, run, int64(offset))
}

// copy takes a file-copy frame in.
func (t *Target) copy(f *incoming, offset uint64, c *cursor) error {
	from, size, sum := c.number(8), c.number(4), c.number(sumSize)
	if c.short || len(c.rest) > 0 || f.from == nil || size == 0 || size > copySize || from > maxSize {
		return hostile("malformed copy into %s", quoted(f.path))
	}
	if err := f.run(offset, size); err != nil {
		return err
	}
	b, err := f.from.read(t.own.buffer(int(size)), int64(from), t.own.seed, sum)
	if err != nil {
		return err
	}
	return writeAt(f.fd, b, int64(offset))
}

// hole takes a file-hole frame in.
func (f *incoming) hole(offset uint64, c *cursor) error {
	size := c.number(8)
	if c.short || len(c.rest) > 0 || f.basis != basisSame || size == 0 {
		return hostile("malformed hole in %s", quoted(f.path))
	}
	if err := f.run(offset, size); err != nil {
		return err
	}
	err := unix.Fallocate(f.fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, int64(offset), int64(size))
	if errors.Is(err, unix.EOPNOTSUPP) {
		return writeZeros(f.fd, int64(offset), min(f.end, f.old))
	}
	return err
}

// writeZeros is for file systems that cannot punch holes.
func writeZeros(fd int, at, end int64) error {
	zeros := make([]byte, 64<<10)
	for at < end {
		n := min(end-at, int64(len(zeros)))
		if err := writeAt(fd, zeros[:n], at); err != nil {
			return err
		}
		at += n
	}
	return nil
}

func writeAt(fd int, b []byte, offset int64) error {
	for len(b) > 0 {
		n, err := unix.Pwrite(fd, b, offset)
		if err != nil {
			return err
		}
		b, offset = b[n:], offset+int64(n)
	}
	return nil
}

// complete gives the file, whose runs end at end, its size and its metadata.
func (t *Target) complete(f *incoming, end int64) error {
	if end < f.size && f.basis != basisSame {
		if err := unix.Ftruncate(f.fd, f.size); err != nil {
			return err
		}
	}
	if err := t.own.describe(f.fd, f.entry, f.birth); err != nil {
		return err
	}
	return t.closeFile()
}

func (t *Target) closeFile() error {
	f := t.file
	t.file = nil
	if f == nil {
		return nil
	}
	f.from.close()
	if f.fd < 0 {
		return nil
	}
	return unix.Close(f.fd)
}

// origin is a file of the tree or of the base that content is taken from.
type origin struct {
	fd         int
	size       int64
	path, what string
}

// openFrom opens the file that e comes from.
func (w *writer) openFrom(e *entry) (*origin, error) {
	o := &origin{path: e.from, what: "tree"}
	root := w.root
	if e.basis == basisBase {
		o.what = "base"
		if w.base == nil {
			return nil, hostile("%s is to come from a base, and there is none", quoted(w.path(e)))
		}
		root = int(w.base.Fd())
	}
	var err error
	o.fd, o.size, err = openRegular(root, e.from, unix.O_RDONLY|unix.O_NOATIME)
	if gone(err) || errors.Is(err, errNotRegular) {
		return nil, o.changed()
	}
	return o, pathErrorIf("open", e.from, err)
}

func (o *origin) close() {
	if o != nil {
		unix.Close(o.fd)
	}
}

func (o *origin) changed() error {
	return fault.New(fault.Copy, "file %s of the %s changed meanwhile", quoted(o.path), o.what).
		WithHint("Nothing else may write there during a migration. Try again.")
}

// read fills b from offset on and checks its sum.
func (o *origin) read(b []byte, offset int64, seed, sum uint64) ([]byte, error) {
	if err := o.readAt(b, offset); err != nil {
		return nil, err
	}
	if xxh3.HashSeed(b, seed) != sum {
		return nil, o.changed()
	}
	return b, nil
}

func (o *origin) readAt(b []byte, offset int64) error {
	n, err := preadFull(o.fd, b, offset)
	if err != nil {
		return pathError("read", o.path, err)
	}
	if n < len(b) {
		return o.changed()
	}
	return nil
}

// copyAll copies the whole file, which must have the sum, to fd.
func (w *writer) copyAll(fd int, from *origin, sum uint64) error {
	hash := xxh3.NewSeed(w.seed)
	for at := int64(0); at < from.size; {
		if err := w.pool.failed(); err != nil {
			return err
		}
		b := w.buffer(int(min(copySize, from.size-at)))
		if err := from.readAt(b, at); err != nil {
			return err
		}
		hash.Write(b)
		if err := writeAt(fd, b, at); err != nil {
			return err
		}
		at += int64(len(b))
	}
	if hash.Sum64() != sum {
		return from.changed()
	}
	return nil
}

// parseBegin reads the payload of files-begin.
func parseBegin(payload []byte) (pass int, seed uint64, err error) {
	var begin struct {
		Pass int    `json:"pass"`
		Seed string `json:"seed"`
	}
	if err := transport.DecodeJSON(transport.TypeFilesBegin, payload, &begin); err != nil {
		return 0, 0, err
	}
	if begin.Seed == "" { // there are no sums
		return begin.Pass, 0, nil
	}
	if seed, err = strconv.ParseUint(begin.Seed, 16, 64); err != nil {
		return 0, 0, hostile("malformed seed %q", begin.Seed)
	}
	return begin.Pass, seed, nil
}

// numbered takes the payload of file-aside and file-back apart.
func numbered(payload []byte) (number uint64, path string, err error) {
	if len(payload) < 8 {
		return 0, "", hostile("malformed frame of %d bytes about what is aside", len(payload))
	}
	return binary.BigEndian.Uint64(payload), string(payload[8:]), nil
}
