package files

import (
	"encoding/binary"
	"errors"
	"strings"

	"golang.org/x/sys/unix"
)

// sumSize is the length of a sum on the wire.
const sumSize = 8

// appendBatchHead begins the payload of a file-batch frame for the directory.
func appendBatchHead(b []byte, dir string) []byte { return appendBytes(b, dir) }

// appendBatchFile adds a file; e.path is its name. content is the whole of it,
// or its sum if e has a basis to be copied.
func appendBatchFile(b []byte, e *entry, content []byte) []byte {
	at := len(b)
	b = e.append(append(b, 0, 0, 0, 0))
	binary.BigEndian.PutUint32(b[at:], uint32(len(b)-at-4))
	return append(b, content...)
}

// parseBatchHead takes the directory off the payload.
func parseBatchHead(payload []byte) (dir string, records []byte, err error) {
	c := &cursor{rest: payload}
	dir = string(c.bytes(c.number(2)))
	if c.short {
		return "", nil, hostile("malformed batch of %d bytes", len(payload))
	}
	return dir, c.rest, nil
}

// parseBatchFile takes the first file off the records. content is part of them.
func parseBatchFile(records []byte) (e *entry, content, rest []byte, err error) {
	c := &cursor{rest: records}
	frame := c.bytes(c.number(4))
	if c.short {
		return nil, nil, nil, hostile("malformed batch, %d bytes before its end", len(records))
	}
	if e, err = parseEntry(frame); err != nil {
		return nil, nil, nil, err
	}
	if !e.regular() || strings.IndexByte(e.path, '/') >= 0 {
		return nil, nil, nil, hostile("%s is no file for a batch", quoted(e.path))
	}
	if e.copied() {
		content = c.bytes(sumSize)
	} else {
		content = c.bytes(uint64(e.size))
	}
	if c.short {
		return nil, nil, nil, hostile("content of %s ends beyond its batch", quoted(e.path))
	}
	return e, content, c.rest, nil
}

// copied reports whether content comes from another file here.
func (e *entry) copied() bool { return e.basis == basisTree || e.basis == basisBase }

// readsTree reports whether a file among the records comes from another one of
// the tree. It is not the place that notices malformed records.
func readsTree(records []byte) bool {
	c := &cursor{rest: records}
	for !c.short && len(c.rest) > 0 {
		e := &cursor{rest: c.bytes(c.number(4))}
		e.bytes(1)
		e.bytes(e.number(2))
		e.bytes(5 * 4)
		size := e.number(8)
		e.bytes(2*12 + 2*4)
		switch e.number(1) {
		case basisTree:
			return !e.short
		case basisBase:
			size = sumSize
		}
		c.bytes(size)
	}
	return false
}

// batch writes the files of j.
func (w *writer) batch(j *parcel) error {
	w.dir = j.dir.path
	for rest := j.payload; len(rest) > 0; {
		if err := w.pool.failed(); err != nil {
			return err
		}
		var e *entry
		var content []byte
		var err error
		if e, content, rest, err = parseBatchFile(rest); err != nil {
			return err
		}
		if err := w.batchFile(j, e, content); err != nil {
			return pathError("write", w.path(e), err)
		}
		j.entries++
		if !e.copied() {
			j.bytes += uint64(len(content))
		}
	}
	return nil
}

func (w *writer) batchFile(j *parcel, e *entry, content []byte) error {
	switch {
	case e.basis == basisSame:
		return w.overwrite(j, e, content)
	case e.copied():
		return w.duplicate(j, e, binary.BigEndian.Uint64(content))
	}
	return w.write(j, e, content)
}

// write makes a file of the content.
func (w *writer) write(j *parcel, e *entry, content []byte) error {
	fd, err := w.create(j, e)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := writeAt(fd, content, 0); err != nil {
		return err
	}
	return w.describe(fd, e, j.dir.birth)
}

// create makes the file, removing what is in its place. A directory is removed
// only when nothing before the job can be at work in it.
func (w *writer) create(j *parcel, e *entry) (int, error) {
	w.owner.set(e)
	fd, err := createFile(j.dir.fd, e)
	if !errors.Is(err, unix.EEXIST) {
		return fd, err
	}
	if j.careful {
		if err := w.pool.turn(j); err != nil {
			return -1, err
		}
	}
	err = unix.Unlinkat(j.dir.fd, e.path, 0)
	if errors.Is(err, unix.EISDIR) {
		if err = w.pool.turn(j); err == nil {
			err = removeAll(j.dir.fd, e.path)
		}
	}
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return -1, err
	}
	return createFile(j.dir.fd, e)
}

func createFile(dir int, e *entry) (int, error) {
	name := e.path[strings.LastIndexByte(e.path, '/')+1:]
	return openBeneath(dir, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, e.mode&0o777)
}

// removeAll deletes name in dir with all beneath it.
func removeAll(dir int, name string) error {
	fd, err := unix.FcntlInt(uintptr(dir), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return err
	}
	t := newTrail(fd)
	defer t.close()
	return t.remove(name)
}

// overwrite gives the file that is there the content.
func (w *writer) overwrite(j *parcel, e *entry, content []byte) error {
	if j.careful {
		if err := w.pool.turn(j); err != nil {
			return err
		}
	}
	fd, size, err := openRegular(j.dir.fd, e.path, unix.O_WRONLY)
	if err != nil {
		return noFile(w.path(e), err)
	}
	defer unix.Close(fd)
	if err := writeAt(fd, content, 0); err != nil {
		return err
	}
	if size > e.size {
		if err := unix.Ftruncate(fd, e.size); err != nil {
			return err
		}
	}
	return w.describe(fd, e, nil)
}

// duplicate makes a copy of another file, which must have the sum. If it has
// not, a job before this one may still have to write it.
func (w *writer) duplicate(j *parcel, e *entry, sum uint64) error {
	if e.size > copySize {
		return w.duplicateLarge(j, e, sum)
	}
	content, err := w.readWhole(e, sum)
	if err != nil && e.basis == basisTree {
		if err := w.pool.turn(j); err != nil {
			return err
		}
		content, err = w.readWhole(e, sum)
	}
	if err != nil {
		return err
	}
	return w.write(j, e, content)
}

// readWhole reads the file that e comes from; it is valid until the next read.
func (w *writer) readWhole(e *entry, sum uint64) ([]byte, error) {
	from, err := w.openFrom(e)
	if err != nil {
		return nil, err
	}
	defer from.close()
	if from.size != e.size {
		return nil, from.changed()
	}
	return from.read(w.buffer(int(e.size)), 0, w.seed, sum)
}

// duplicateLarge copies and sums piece by piece.
func (w *writer) duplicateLarge(j *parcel, e *entry, sum uint64) error {
	if e.basis == basisTree {
		if err := w.pool.turn(j); err != nil {
			return err
		}
	}
	from, err := w.openFrom(e)
	if err != nil {
		return err
	}
	defer from.close()
	if from.size != e.size {
		return from.changed()
	}
	fd, err := w.create(j, e)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := w.copyAll(fd, from, sum); err != nil {
		return err
	}
	return w.describe(fd, e, j.dir.birth)
}
