package files

import (
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/transport"
)

// large is a regular file on its way that does not fit into a batch.
type large struct {
	s      *sender
	node   *node
	fd     int
	users  atomic.Int32 // of fd
	path   string
	size   int64
	sparse bool
	block  int64
	basis  uint8
	from   *blockSums // the content that the basis has; nil: none that is known
	sums   *blockSums // what it is getting
	shrank atomic.Bool
}

// large sends a large or sparse file in the directory at the end of the trail.
func (s *scanner) large(n *node, st *unix.Stat_t) error {
	f, e, err := s.openLarge(n, st)
	if err != nil {
		return err
	}
	defer f.close()
	if err := s.endBatch(); err != nil {
		return err
	}
	if done, err := s.basedLarge(f, e); done || err != nil {
		return err
	}
	s.larges = append(s.larges, f)
	return s.sendLarge(f, e)
}

// openLarge opens a file and sets st to what it is.
func (s *scanner) openLarge(n *node, st *unix.Stat_t) (*large, *entry, error) {
	dir, err := s.fd()
	if err != nil {
		return nil, nil, err
	}
	fd, err := openFileAt(dir, n.name)
	if err != nil {
		return nil, nil, err
	}
	f := &large{s: s.sender, node: n, fd: fd, path: s.path(n.name)}
	f.users.Store(1)
	e, err := s.aboutLarge(f, st)
	if err != nil {
		f.close()
		return nil, nil, err
	}
	return f, e, nil
}

// openFileAt opens a regular file to read. Other types, which may have taken
// its place, say ELOOP, ENXIO, and EACCES since devices are out of use there.
func openFileAt(dir int, name string) (int, error) {
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOATIME|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err == nil {
		return fd, nil
	}
	var st unix.Stat_t
	if serr := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); serr == nil && st.Mode&unix.S_IFMT != unix.S_IFREG {
		return -1, errReplaced
	}
	return -1, err
}

func (s *scanner) aboutLarge(f *large, st *unix.Stat_t) (*entry, error) {
	ino, n, seen := st.Ino, f.node, time.Now()
	if err := unix.Fstat(f.fd, st); err != nil {
		return nil, err
	}
	if st.Ino != ino || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, errReplaced
	}
	e, err := s.own.regular(f.fd, f.path, st)
	if err != nil {
		return nil, err
	}
	f.size, f.sparse, f.block = st.Size, sparse(st), max(blockFor(st.Size, manySums), s.src.block)
	if n.same(st) {
		f.basis = basisSame
		if f.from = n.sums; f.from != nil {
			f.block = f.from.block
		} else {
			f.basis = basisNone
			if n.linked || st.Nlink > 1 {
				f.basis = basisSame // its other names go with it
			}
		}
	} else if err := s.likeAnother(f, e); err != nil {
		return nil, err
	}
	e.basis = f.basis
	f.sums = newSums(f.size, f.block)
	s.record(n, st, seen)
	n.sums = nil // until the pass is good
	return e, nil
}

// likeAnother finds a summed file that has this size and first block.
func (s *scanner) likeAnother(f *large, e *entry) error {
	if len(s.src.copies) == 0 {
		return nil
	}
	b := s.own.bulk[:min(f.block, f.size)]
	n, err := preadFull(f.fd, b, 0)
	if err != nil {
		return pathError("read", f.path, err)
	}
	like := s.src.copies[copyKey{f.size, sum(b[:n], s.seed)}]
	if like == nil || like.sums == nil || like.missing || like.sums.block != f.block || like == f.node || !s.attached(like) {
		return nil
	}
	f.basis, f.from = basisTree, like.sums
	e.from = s.pathOf(like.parent, like.name)
	return nil
}

// sendLarge sends the entry and all content.
func (s *scanner) sendLarge(f *large, e *entry) error {
	if err := s.entry(e); err != nil {
		return err
	}
	for at := int64(0); at < f.size; at += chunkSize {
		if err := s.part(f, at, min(at+chunkSize, f.size)); err != nil {
			return err
		}
	}
	if err := s.shorter(f); err != nil {
		return err
	}
	return s.data(f.size, nil)
}

// shorter finds out that a file is not as long any more as it was: what it has
// lost passes for a hole.
func (s *scanner) shorter(f *large) error {
	var st unix.Stat_t
	if err := unix.Fstat(f.fd, &st); err != nil {
		return pathError("read", f.path, err)
	}
	if st.Size < f.size && s.Frozen {
		return fault.New(fault.Copy, "%s shrank while frozen", quoted(f.path))
	}
	return nil
}

// part has the content from start to end read, if there is any.
func (s *scanner) part(f *large, start, end int64) error {
	if err := fault.Ended(s.ctx); err != nil {
		return err
	}
	c := &piece{f: f, start: start, end: end}
	for at := start; at < end; {
		from, to, err := nextRun(f.fd, at, end)
		if err != nil {
			return pathError("seek in", f.path, err)
		}
		if from < to {
			c.data = append(c.data, extent{from, to})
		}
		at = to
	}
	if len(c.data) == 0 && f.basis != basisSame {
		return nil
	}
	f.users.Add(1)
	j := s.take()
	j.work = c.read
	return s.submit(j)
}

// data adds a frame of content, or with none the end of the file.
func (s *sender) data(offset int64, run []byte) error {
	return s.frame(transport.TypeFileData, Stats{Bytes: uint64(len(run))}, func(b []byte) []byte {
		return append(appendOffset(b, offset), run...)
	})
}

// nextRun finds the first run of data from at on; it is empty and at end if
// there is none (lseek(2), SEEK_DATA).
func nextRun(fd int, at, end int64) (from, to int64, err error) {
	from, err = unix.Seek(fd, at, unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) || err == nil && from >= end {
		return end, end, nil
	}
	if err != nil {
		return 0, 0, err
	}
	to, err = unix.Seek(fd, from, unix.SEEK_HOLE)
	if errors.Is(err, unix.ENXIO) { // truncated since
		return from, end, nil
	}
	return from, min(to, end), err
}

// close lets go of the file for one user.
func (f *large) close() {
	if f.users.Add(-1) == 0 {
		unix.Close(f.fd)
	}
}

// extent is [from, to) in a file.
type extent struct{ from, to int64 }

// piece is a part of a large file that a worker reads: [start, end), of which
// only data is not a hole.
type piece struct {
	f          *large
	start, end int64
	data       []extent
}

// read is the work of a piece.
func (c *piece) read(w *worker, j *job) error {
	defer c.f.close()
	if err := fault.Ended(c.f.s.ctx); err != nil {
		return err
	}
	if c.new() {
		return c.readNew(j)
	}
	b := w.bulk[:c.end-c.start]
	if err := c.fill(b); err != nil {
		return err
	}
	for at := c.start; at < c.end; {
		to, known := c.alike(b, at)
		switch {
		case !known:
			c.differs(b, j, at, to)
		case c.f.basis == basisTree:
			c.copied(b, j, at, to)
		}
		at = to
	}
	return nil
}

// new reports whether all of it is data that the receiver has not.
func (c *piece) new() bool {
	return c.f.from == nil && len(c.data) == 1 && c.data[0] == extent{c.start, c.end}
}

// readNew reads it to where it is sent from.
func (c *piece) readNew(j *job) error {
	n := int(c.end - c.start)
	j.buf = slices.Grow(appendOffset(j.buf, c.start), n)
	j.buf = j.buf[:len(j.buf)+n]
	b := j.buf[len(j.buf)-n:]
	if err := c.fill(b); err != nil {
		return err
	}
	for at := c.start; at < c.end; at += c.f.block {
		c.sum(b, at, min(at+c.f.block, c.end))
	}
	j.frame(transport.TypeFileData)
	j.stat.Bytes += uint64(n)
	return nil
}

// fill reads the data; the holes are zero. What a file loses while it is read
// is zero, too: the next pass will see that it has changed.
func (c *piece) fill(b []byte) error {
	at := c.start
	for _, d := range c.data {
		clear(b[at-c.start : d.from-c.start])
		part := b[d.from-c.start : d.to-c.start]
		n, err := preadFull(c.f.fd, part, d.from)
		if err != nil {
			return pathError("read", c.f.path, err)
		}
		if n < len(part) {
			if c.f.s.Frozen {
				return fault.New(fault.Copy, "%s shrank while frozen", quoted(c.f.path))
			}
			c.f.shrank.Store(true)
			clear(part[n:])
		}
		at = d.to
	}
	clear(b[at-c.start:])
	return nil
}

// alike sums the blocks from at on that the basis has, or those that it has not.
func (c *piece) alike(b []byte, at int64) (to int64, known bool) {
	for to = at; to < c.end; {
		end := min(to+c.f.block, c.end)
		has := c.sum(b, to, end)
		if to > at && has != known {
			return to, known
		}
		to, known = end, has
	}
	return to, known
}

// sum notes the sum of a block, and tells whether the basis has the same there.
func (c *piece) sum(b []byte, from, to int64) bool {
	i, s := from/c.f.block, uint64(0)
	if c.hasData(from, to) {
		s = sum(b[from-c.start:to-c.start], c.f.s.seed)
	}
	c.f.sums.sums[i] = s
	return c.f.from.has(i, to-from, s)
}

func (c *piece) hasData(from, to int64) bool {
	for _, d := range c.data {
		if d.from < to && from < d.to {
			return true
		}
	}
	return false
}

// differs adds the content from at to end, with its holes where the basis may
// have none.
func (c *piece) differs(b []byte, j *job, at, end int64) {
	hole := func(from, to int64) {
		if from < to && c.f.basis == basisSame {
			j.buf = appendOffset(appendOffset(j.buf, from), to-from)
			j.frame(transport.TypeFileHole)
		}
	}
	for _, d := range c.data {
		from, to := max(d.from, at), min(d.to, end)
		if from >= to {
			continue
		}
		hole(at, from)
		j.buf = append(appendOffset(j.buf, from), b[from-c.start:to-c.start]...)
		j.frame(transport.TypeFileData)
		j.stat.Bytes += uint64(to - from)
		at = to
	}
	hole(at, end)
}

// copied adds that the file which is like this one has the content.
func (c *piece) copied(b []byte, j *job, at, end int64) {
	for _, d := range c.data {
		if from, to := max(d.from, at), min(d.to, end); from < to {
			j.buf = appendCopy(j.buf, from, from, to-from, sum64(b[from-c.start:to-c.start], c.f.s.seed))
			j.frame(transport.TypeFileCopy)
		}
	}
}
