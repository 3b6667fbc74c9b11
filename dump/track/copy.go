package track

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"
)

const maxRun = 128 // pages of a run with content

// fate is what becomes of a page that was read.
type fate uint8

const (
	same  fate = iota // passed on before
	fresh             // to be passed on
	empty             // is not there
)

// copier reads pages and passes them on.
type copier struct {
	buf    []byte
	batch  []span
	pages  int
	remote []unix.RemoteIovec
	fates  [maxRun]fate
}

func newCopier() *copier { return &copier{buf: make([]byte, maxRun*PageSize)} }

// run does jobs until there are no more. After an error it only drains them.
func (c *copier) run(p *pass) {
	for j := range p.todo {
		if context.Cause(p.ctx) == nil {
			if err := c.copy(p, j); err != nil {
				p.cancel(err)
			}
		}
		p.free <- j
	}
}

// copy collects the spans of a job into batches of one buffer.
func (c *copier) copy(p *pass, j *job) error {
	c.batch, c.pages = c.batch[:0], 0
	for _, s := range j.spans {
		for s.start < s.end {
			n := min(int(s.pages()), maxRun-c.pages)
			end := s.start + uint64(n)*PageSize
			c.batch = append(c.batch, span{s.start, end})
			c.pages += n
			s.start = end
			if c.pages == maxRun {
				if err := c.flush(p, j); err != nil {
					return err
				}
			}
		}
	}
	return c.flush(p, j)
}

func (c *copier) flush(p *pass, j *job) error {
	if c.pages == 0 {
		return nil
	}
	clear(c.fates[:])
	read, id := c.readSpace, uint64(0)
	if j.o != nil {
		read, id = c.readObject, j.o.id
	} else {
		id = j.s.id
	}
	there, err := read(j)
	if there && err == nil {
		err = c.pass(p, id, j.own)
	}
	c.batch, c.pages = c.batch[:0], 0
	return err
}

// pass passes the batch on, in runs of one fate.
func (c *copier) pass(p *pass, id uint64, own bool) error {
	i := 0
	for _, s := range c.batch {
		for n := int(s.pages()); n > 0; {
			k := 1
			for k < n && c.fates[i+k] == c.fates[i] {
				k++
			}
			r := Run{Space: id, Address: s.start, Count: uint32(k)}
			if c.fates[i] == fresh {
				r.Data, r.Own = c.buf[i*PageSize:(i+k)*PageSize], own
			}
			if c.fates[i] != same {
				if err := p.send(r); err != nil {
					return err
				}
			}
			i, n, s.start = i+k, n-k, s.start+uint64(k)*PageSize
		}
	}
	return nil
}

// readSpace reads the batch from a process. Nothing is there if its memory is
// gone meanwhile.
func (c *copier) readSpace(j *job) (there bool, err error) {
	s, tid := j.s, j.s.tasks[0].tid
	c.remote = c.remote[:0]
	for _, b := range c.batch {
		c.remote = append(c.remote, unix.RemoteIovec{Base: uintptr(b.start), Len: int(b.end - b.start)})
	}
	local := []unix.Iovec{{Base: &c.buf[0], Len: uint64(c.pages * PageSize)}}
	got, err := unix.ProcessVMReadv(tid, local, c.remote, 0)
	if err != nil || !s.isOf(tid) {
		got = 0
	}
	if !s.alive() {
		return false, nil
	}
	i := 0
	for _, b := range c.batch {
		for at := b.start; at < b.end; at += PageSize {
			if err := c.readPage(s, i, at, i < got/PageSize); err != nil {
				return false, err
			}
			i++
		}
	}
	return true, nil
}

// readPage decides on a page, and reads it if that is not done yet: through
// /proc/PID/mem pages can be read that the process itself may not.
func (c *copier) readPage(s *space, i int, at uint64, done bool) error {
	page := c.buf[i*PageSize : (i+1)*PageSize]
	if !done {
		n, err := unix.Pread(s.mem, page, int64(at))
		for err == unix.EINTR {
			n, err = unix.Pread(s.mem, page, int64(at))
		}
		if err != nil && err != unix.EIO && err != unix.EFAULT {
			return fmt.Errorf("read page %#x of process %d: %w", at, s.tasks[0].pid, err)
		}
		if n < PageSize { // it is not there any more, or a guard
			c.fates[i] = empty
			if s.sums != nil {
				s.sums.changed(at, 0)
			}
			return nil
		}
	}
	if s.sums == nil || s.sums.changed(at, sum(page)) {
		c.fates[i] = fresh
	}
	return nil
}

// readObject reads the batch from a shared memory object.
func (c *copier) readObject(j *job) (there bool, err error) {
	i := 0
	for _, b := range c.batch {
		part := c.buf[i*PageSize : i*PageSize+int(b.end-b.start)]
		if err := j.o.read(part, b.start); err != nil {
			return false, err
		}
		for at := b.start; at < b.end; at += PageSize {
			sum := sumOrZero(c.buf[i*PageSize : (i+1)*PageSize])
			if j.o.sums.changed(at, sum) {
				c.fates[i] = fresh
				if sum == 0 {
					c.fates[i] = empty
				}
			}
			i++
		}
	}
	return true, nil
}
