package files

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/transport"
)

// A file of at most smallFile bytes goes whole in a batch, with others of its
// directory: up to batchFiles of them, or about chunkSize bytes. A batch of at
// most soonBytes is read at once: most directories have only a few files, and
// handing those over would take longer.
const (
	smallFile  = 64 << 10
	batchFiles = 128
	chunkSize  = 512 << 10
	soonBytes  = 16 << 10
)

// batch is small files of one directory.
type batch struct {
	s     *sender
	dir   int // valid while it is read
	path  string
	files []small
	bytes int64 // about what they have
}

type small struct {
	node *node
	ino  uint64
	same bool // the receiver has that inode there
}

// collect adds a small file to the batch of the directory at the end of the
// trail.
func (s *scanner) collect(n *node, st *unix.Stat_t) error {
	if s.batch == nil {
		s.batch = &batch{s: s.sender, path: s.here()}
	}
	b := s.batch
	b.files = append(b.files, small{n, st.Ino, n.same(st)})
	n.digest, n.sums = 0, nil // until it has been read
	b.bytes += st.Size + 256
	if len(b.files) < batchFiles && b.bytes < chunkSize-smallFile {
		return nil
	}
	return s.endBatch()
}

// apply notes what a job has read.
func (s *scanner) apply(j *job) {
	for i := range j.results {
		r := &j.results[i]
		s.record(r.node, &r.st, r.seen)
	}
	j.results = j.results[:0]
}

// endBatch sends the batch of the directory at the end of the trail, if there is
// one.
func (s *scanner) endBatch() (err error) {
	b := s.batch
	s.batch = nil
	if b == nil {
		return nil
	}
	if b.dir, err = s.fd(); err != nil {
		return err
	}
	if b.bytes <= soonBytes {
		return s.include(b)
	}
	if b.dir, err = unix.FcntlInt(uintptr(b.dir), unix.F_DUPFD_CLOEXEC, 0); err != nil {
		return err
	}
	j := s.take()
	j.work = b.readAndClose
	return s.submit(j)
}

// include reads the batch into the job that is being filled.
func (s *scanner) include(b *batch) error {
	if s.now == nil {
		s.now = s.take()
	}
	s.now.work = packs // of its frames some may be worth it
	if err := b.read(s.own, s.now); err != nil {
		return err
	}
	return s.full()
}

func packs(*worker, *job) error { return nil }

// alone sends a small file at once, and reports whether it was there: others
// may be linked to it.
func (s *scanner) alone(n *node, st *unix.Stat_t) error {
	if err := s.endBatch(); err != nil {
		return err
	}
	if err := s.collect(n, st); err != nil {
		return err
	}
	b, j := s.batch, s.take()
	s.batch = nil
	dir, err := s.fd()
	if err == nil {
		b.dir = dir
		err = b.read(s.own, j)
	}
	if err == nil && len(j.results) == 0 {
		err = errReplaced
	}
	s.apply(j)
	j.err, j.work = err, nil
	if errors.Is(err, errReplaced) {
		j.err = nil
	}
	if perr := s.submit(j); err == nil {
		err = perr
	}
	return err
}

// readAndClose is the work of a batch with a descriptor of its own.
func (b *batch) readAndClose(w *worker, j *job) error {
	defer unix.Close(b.dir)
	return b.read(w, j)
}

// read adds a frame with all that is still there.
func (b *batch) read(w *worker, j *job) error {
	if err := fault.Ended(b.s.ctx); err != nil {
		return err
	}
	head := len(j.buf)
	j.buf = appendBatchHead(j.buf, b.path)
	start := len(j.buf)
	for _, f := range b.files {
		err := b.file(w, j, f)
		if err == nil {
			continue
		}
		if err := b.s.mayVanish(joined(b.path, f.node.name), err); err != nil {
			return err
		}
	}
	if len(j.buf) == start {
		j.buf = j.buf[:head]
		return nil
	}
	j.frame(transport.TypeFileBatch)
	return nil
}

// file adds one file. It is read once; if it changes meanwhile, the next pass
// will see that.
func (b *batch) file(w *worker, j *job, f small) error {
	fd, err := openFileAt(b.dir, f.node.name)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	seen := time.Now()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Ino != f.ino || st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size > smallFile {
		return errReplaced
	}
	n, err := preadFull(fd, w.bulk[:st.Size], 0)
	if err != nil {
		return err
	}
	shown := st
	shown.Size = int64(n) // it has shrunk since, and will be seen to have changed
	e, err := w.regular(fd, f.node.name, &shown)
	if err != nil {
		return err
	}
	if f.same {
		e.basis = basisSame
	}
	content := b.s.basedOn(e, w.bulk[:n])
	if err := e.sendable(); err != nil {
		return err
	}
	j.buf = appendBatchFile(j.buf, e, content)
	j.stat.Sent++
	if e.basis != basisBase {
		j.stat.Bytes += uint64(n)
	}
	j.results = append(j.results, result{f.node, st, seen})
	return nil
}

// regular makes the entry of an open regular file.
func (w *worker) regular(fd int, path string, st *unix.Stat_t) (e *entry, err error) {
	e = describe(path, st)
	if e.flags, e.project, err = readFlags(fd); err != nil {
		return nil, err
	}
	e.xattrs, err = w.xattrs.readOpen(fd)
	return e, err
}

// preadFull reads until b is full or the file ends.
func preadFull(fd int, b []byte, offset int64) (n int, err error) {
	for n < len(b) {
		k, err := unix.Pread(fd, b[n:], offset+int64(n))
		if err == unix.EINTR {
			continue
		}
		if err != nil || k == 0 {
			return n, err
		}
		n += k
	}
	return n, nil
}
