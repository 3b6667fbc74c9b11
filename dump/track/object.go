package track

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"os"
	"slices"

	"github.com/zeebo/xxh3"
	"golang.org/x/sys/unix"
)

// object is a shared memory object that only mappings hold. Who wrote to it is
// noted in the page tables of its writers, and lost with them; therefore the
// sums of all its pages are kept, and compared whenever that may have happened.
type object struct {
	id   uint64
	fd   int
	size uint64

	sums  *sumTable
	dirty pageSet // offsets written since the last pass

	seen    bool          // in this pass
	mappers uint64        // digest of who had it mapped, and where, when it was read
	now     uint64        // the same of this pass
	changed unix.Timespec // when it last changed, at the last pass
	swept   unix.Timespec // and when its holes were looked for
	full    bool          // everything may have changed
	blind   bool          // somebody has it mapped who cannot be watched
}

// begin prepares for a pass. unseen: processes may have come and gone.
func (o *object) begin(run, unseen bool) {
	o.seen, o.now = false, 0
	o.full = o.full || unseen
	if run {
		o.blind = false
	}
}

func (o *object) close() {
	unix.Close(o.fd)
	o.fd = -1
}

// read reads content; holes are zero, and so is what is beyond the end.
func (o *object) read(b []byte, offset uint64) error {
	for len(b) > 0 {
		n, err := unix.Pread(o.fd, b, int64(offset))
		switch {
		case err == unix.EINTR:
		case err != nil:
			return fmt.Errorf("read shared memory: %w", err)
		case n == 0:
			clear(b)
			return nil
		default:
			b, offset = b[n:], offset+uint64(n)
		}
	}
	return nil
}

// has tells whether a mapping is of an object that is tracked.
func (t *tracker) has(v *vma) bool {
	o := t.objects[v.file]
	return o != nil && o.seen
}

// share looks at the mapping of an object by a running process, and tells
// whether the kernel will note writes to it.
func (p *pass) share(s *space, v *vma) (watched bool) {
	p.note(s, v)
	return p.gather(s, v, true)
}

// note notes that a process has an object mapped. Objects that are open
// somewhere are left alone.
func (p *pass) note(s *space, v *vma) {
	if v.memfd && p.isOpen(v.file) {
		return
	}
	o := p.t.objects[v.file]
	if o == nil {
		if o = openObject(s.tasks[0].tid, v); o == nil {
			return // unmapped meanwhile
		}
		o.id = p.t.number(Shared)
		p.t.objects[v.file] = o
	}
	o.seen = true
	var key [40]byte
	for i, n := range []uint64{o.now, s.id, v.start, v.end, v.offset} {
		binary.NativeEndian.PutUint64(key[8*i:], n)
	}
	o.now = xxh3.Hash(key[:])
}

// openObject opens the object behind a mapping. The descriptor holds no process.
func openObject(tid int, v *vma) *object {
	fd, err := unix.Open(mapFile(tid, v), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	o := &object{fd: fd, sums: newSums(), full: true}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Ino != v.file.ino {
		o.close()
		return nil
	}
	return o
}

// isOpen tells whether a process of the container has a file open.
func (p *pass) isOpen(file fileKey) bool {
	if p.open == nil {
		p.open = map[fileKey]bool{}
		for pid := range p.pids {
			p.listOpen(fmt.Sprintf("/proc/%d/fd", pid))
		}
	}
	return p.open[file]
}

func (p *pass) listOpen(dir string) {
	d, err := os.Open(dir)
	if err != nil {
		return // it has ended
	}
	defer d.Close()
	names, err := d.Readdirnames(0)
	if err != nil {
		return
	}
	for _, name := range names {
		var st unix.Stat_t
		if err := unix.Fstatat(int(d.Fd()), name, &st, 0); err == nil && uint64(st.Dev) == p.t.classes.shmem {
			p.open[fileKey{uint64(st.Dev), st.Ino}] = true
		}
	}
}

// gather notes what a process has written to an object. In a running process
// it is write-protected again; watched tells whether that worked.
func (p *pass) gather(s *space, v *vma, run bool) (watched bool) {
	o := p.t.objects[v.file]
	if o == nil || !o.seen {
		return false
	}
	if s.uffd < 0 {
		o.blind = true
		return false
	}
	// Of shared memory, a page that is not in the page tables may have been
	// written and taken out: the kernel tells of those only if nothing but
	// "written" is asked for.
	q := query{flags: checkWPAsync, mask: isWritten, ret: isWritten}
	if run {
		q.flags |= wpMatching
	}
	at, err := v.start, error(unix.EPERM)
	for try := 0; ; try++ {
		if try > 0 || s.owns(v) {
			at, err = p.t.scanner.scan(s.pagemap, q, at, v.end, func(rs []region) error {
				for _, r := range rs {
					o.dirty.add(v.offset+r.start-v.start, v.offset+r.end-v.start)
				}
				return nil
			})
		}
		if err == nil {
			return true
		}
		if err != unix.EPERM || !run || try == 3 {
			o.full = o.full || v.write || err != unix.EPERM
			return false
		}
		if !p.claimShared(s, v, o) {
			return false
		}
	}
}

// claimShared registers the mapping of an object. One that was never open for
// writing cannot be, and need not.
func (p *pass) claimShared(s *space, v *vma, o *object) bool {
	err := s.registerAll(v)
	if err == unix.EPERM && !v.write {
		return false
	}
	o.full = true
	o.blind = o.blind || err != nil
	return err == nil
}

// readObjects passes on what has changed in the objects that were seen, and
// drops the others. Holes matter only in the last round.
func (p *pass) readObjects(last bool) error {
	for file, o := range p.t.objects {
		if !o.seen {
			if err := p.hole(o, 0, 1<<62); err != nil {
				return err
			}
			o.close()
			delete(p.t.objects, file)
			continue
		}
		if err := p.readChanged(o, last); err != nil {
			return fmt.Errorf("read shared memory object %d: %w", file.ino, err)
		}
	}
	return nil
}

// readChanged passes on what has changed in an object.
//
// Its time of change moves with every page that is written, and when pages are
// taken out of it (MADV_REMOVE). Of those the page tables say nothing; they are
// holes, unless somebody has read them since. If nothing was written, either,
// everything is compared.
func (p *pass) readChanged(o *object, last bool) error {
	var st unix.Stat_t
	if err := unix.Fstat(o.fd, &st); err != nil {
		return err
	}
	moved, written := o.changed != st.Mtim, len(o.dirty.chunks) > 0
	full := o.full || o.blind || o.now != o.mappers || moved && !written
	o.mappers, o.changed, o.size, o.full = o.now, st.Mtim, wholePages(st.Size), false
	if full || last && o.swept != st.Mtim {
		o.swept = st.Mtim
		if err := p.extents(o, full); err != nil {
			return err
		}
	}
	if full {
		o.dirty.chunks = nil
	}
	var err error
	for _, n := range o.dirty.numbers() {
		o.dirty.present(n*chunkBytes, min((n+1)*chunkBytes, o.size), func(s span) {
			if err == nil {
				err = p.copy(nil, o, s.start, s.end)
			}
		})
	}
	o.dirty.chunks = nil
	return err
}

func wholePages(size int64) uint64 { return (uint64(size) + PageSize - 1) &^ (PageSize - 1) }

// extents passes on that there is nothing in the holes of an object, and if
// wanted compares the rest (lseek(2), SEEK_DATA).
func (p *pass) extents(o *object, compare bool) error {
	for at := uint64(0); at < o.size; {
		data, err := unix.Seek(o.fd, int64(at), unix.SEEK_DATA)
		if err == unix.ENXIO {
			return p.hole(o, at, o.size)
		} else if err != nil {
			return err
		}
		end, err := unix.Seek(o.fd, data, unix.SEEK_HOLE)
		if err != nil {
			return err
		}
		start := uint64(data) &^ (PageSize - 1)
		if err := p.hole(o, at, start); err != nil {
			return err
		}
		at = min(wholePages(end), o.size)
		if compare {
			if err := p.copy(nil, o, start, at); err != nil {
				return err
			}
		}
	}
	return nil
}

// hole notes that there is nothing in [start, end), and passes that on if
// something had been passed on.
func (p *pass) hole(o *object, start, end uint64) error {
	if start >= end {
		return nil
	}
	if was, pages := o.sums.remove(start, end); pages > 0 {
		return p.zero(o.id, was)
	}
	return nil
}

// listObjects lists the objects that were seen.
func (t *tracker) listObjects() (all []Object) {
	for file, o := range t.objects {
		if o.seen {
			all = append(all, Object{Inode: file.ino, Space: o.id, Size: o.sizeNow()})
		}
	}
	slices.SortFunc(all, func(a, b Object) int { return cmp.Compare(a.Space, b.Space) })
	return all
}

// sizeNow is the size of the object in bytes, in whole pages.
func (o *object) sizeNow() uint64 {
	var st unix.Stat_t
	if err := unix.Fstat(o.fd, &st); err != nil {
		return o.size
	}
	return wholePages(st.Size)
}
