package track

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// tracker is all three trackers: they differ in how a space shows what changed.
//
// uffd-wp: each process is made to open a userfaultfd, which is taken out of it
// (attach.go). With it all mappings that can change are registered for
// asynchronous write protection: a write to a protected page takes the
// protection off, in the kernel, and PAGEMAP_SCAN finds such pages and protects
// them again in one step (walk.go). soft-dirty: the kernel's older bits, which
// cannot be read and cleared in one step (soft.go). hash: sums of all pages,
// also for single processes that cannot be attached to.
//
// Private memory is tracked by process. For each, the set of pages is kept that
// were passed on; the last round compares it with what is there, because pages
// also go away (rest.go). Shared memory is tracked by object (object.go).
//
// Limits: a page that a device writes to directly (O_DIRECT, RDMA) after it was
// protected is not noticed, and nor is shared memory that is taken out of an
// object by MADV_REMOVE and read again, without a write, while other pages of it
// are written. System V shared memory, hugetlb, files and open memfds are not
// tracked.
//
// Sources: Linux Documentation/admin-guide/mm/{userfaultfd,pagemap,soft-dirty}.rst,
// fs/proc/task_mmu.c, mm/shmem.c; kcmp(2), process_vm_readv(2), proc_pid_mem(5).
type tracker struct {
	kind    string
	options Options
	scanner *scanner
	classes *classifier
	census  census

	spaces  []*space // by number
	objects map[fileKey]*object
	next    uint64 // number of the next space

	last    uint64  // pages of the last round
	layout  *Layout // of the last Settle
	text    []byte  // of a maps file
	parsed  []vma   // out of it
	copiers [copiers]*copier
	err     error // that ended a round half-way: what had changed is forgotten
}

func newTracker(kind string, o Options) (*tracker, error) {
	t := &tracker{kind: kind, options: o, objects: map[fileKey]*object{}, next: 1}
	var err error
	if t.scanner, err = newScanner(); err != nil {
		return nil, err
	}
	if t.classes, err = newClassifier(); err != nil {
		return nil, err
	}
	for i := range t.copiers {
		t.copiers[i] = newCopier()
	}
	return t, nil
}

func (t *tracker) Name() string { return t.kind }

// number gives a space its number.
func (t *tracker) number(bit uint64) uint64 {
	t.next++
	return (t.next - 1) | bit
}

// Round looks at everything and passes on what has changed.
func (t *tracker) Round(ctx context.Context, sink Sink) (Round, error) {
	r, err := t.pass(ctx, sink, func(p *pass) error {
		if err := p.refresh(true); err != nil {
			return err
		}
		for _, s := range t.spaces {
			if err := p.walk(s); err != nil {
				return err
			}
		}
		return p.readObjects(false)
	})
	t.last = r.Pages
	return r, err
}

// Finish looks at what Settle has listed. Nothing is protected again: if the
// container is thawed, the same pages are passed on once more.
func (t *tracker) Finish(ctx context.Context, sink Sink) (Round, error) {
	return t.pass(ctx, sink, func(p *pass) error {
		for _, s := range t.spaces {
			if err := p.finish(s); err != nil {
				return err
			}
		}
		return p.readObjects(true)
	})
}

// Close lets go of all processes.
func (t *tracker) Close() error {
	for _, s := range t.spaces {
		s.close()
	}
	for _, o := range t.objects {
		o.close()
	}
	t.spaces, t.objects = nil, map[fileKey]*object{}
	if t.err == nil {
		t.err = errors.New("tracker is closed")
	}
	return nil
}

// Dirty counts the pages that have been written; for page hashes it guesses that
// the next round will be like the last.
func (t *tracker) Dirty() (pages uint64) {
	if t.kind == Hash {
		return t.last
	}
	for _, s := range t.spaces {
		for _, v := range t.mappings(s) {
			if v.class != untracked {
				pages += t.dirty(s, &v)
			}
		}
	}
	return pages
}

// dirty counts the pages of a mapping that have been written.
func (t *tracker) dirty(s *space, v *vma) (pages uint64) {
	bit := uint64(isWritten)
	if s.soft {
		bit = isSoftDirty
	}
	_, _ = t.scanner.scan(s.pagemap, t.scanner.content(v, 0, bit, bit), v.start, v.end, func(rs []region) error {
		for _, r := range rs {
			pages += (r.end - r.start) / PageSize
		}
		return nil
	})
	return pages
}

// mappings reads the mappings of a space. They are good until the next call.
// There are none if nobody has the space any more.
func (t *tracker) mappings(s *space) []vma {
	if len(s.tasks) == 0 {
		return nil
	}
	text, err := readAll(s.maps, t.text)
	t.text = text
	if err != nil {
		return nil
	}
	tid := s.tasks[0].tid
	t.parsed = parseMaps(text, t.parsed[:0], func(v *vma, flags, name []byte) class {
		return t.classes.of(tid, v, flags, name)
	})
	return t.parsed
}

// refresh finds out which processes there are. If they run, new ones get
// attached.
func (p *pass) refresh(run bool) error {
	t := p.t
	unseen := t.count()
	list, err := t.options.Pids()
	if err != nil {
		return fmt.Errorf("list processes of the container: %w", err)
	}
	p.pids = make(map[int]bool, len(list))
	for _, pid := range list {
		p.pids[pid] = true
	}
	known := map[int]bool{}
	for _, s := range t.spaces {
		s.leave(func(t *task) bool { return p.pids[t.pid] && s.is(t) })
		for _, task := range s.tasks {
			known[task.pid] = true
		}
	}
	if err := p.retire(); err != nil {
		return err
	}
	for _, pid := range slices.Sorted(maps.Keys(p.pids)) {
		if !known[pid] {
			if err := p.adopt(pid); err != nil {
				return err
			}
		}
	}
	if run {
		p.attach()
	}
	for _, o := range t.objects {
		o.begin(run, unseen)
	}
	return nil
}

// count tells whether processes may have come and gone unseen. Only shared
// memory makes that matter. Those that come from now on are counted next time.
func (t *tracker) count() (unseen bool) {
	var outer *task
	for _, s := range t.spaces {
		for i := range s.tasks {
			if outer == nil || len(s.tasks[i].pids) < len(outer.pids) {
				outer = &s.tasks[i]
			}
		}
	}
	if outer == nil || len(t.objects) == 0 || t.kind != UffdWP {
		t.census.last = 0
		return true
	}
	return t.census.look(outer)
}

// retire drops the spaces that nobody has any more.
func (p *pass) retire() error {
	kept := p.t.spaces[:0]
	var err error
	for _, s := range p.t.spaces {
		if len(s.tasks) > 0 {
			kept = append(kept, s)
			continue
		}
		err = errors.Join(err, p.forget(s, nil))
		s.close()
	}
	clear(p.t.spaces[len(kept):])
	p.t.spaces = kept
	return err
}

// adopt finds or makes the space of a process. A zombie has none.
func (p *pass) adopt(pid int) error {
	t := p.t
	tid := liveThread(pid)
	if tid == 0 {
		return nil
	}
	for _, s := range t.spaces {
		if s.share(tid) {
			if err := gone(s.join(pid, tid)); err != nil && err != errGone {
				return err
			}
			return nil
		}
	}
	s, err := openSpace(t.number(0), pid, tid)
	if err == errGone {
		return nil
	} else if err != nil {
		return err
	}
	switch t.kind {
	case UffdWP:
		s.late = true
	case SoftDirty:
		s.soft = true
	case Hash:
		s.sums = newSums()
	}
	t.spaces = append(t.spaces, s)
	return nil
}

// attach attaches the spaces that are not yet. Where that does not work pages
// are compared.
func (p *pass) attach() {
	for _, s := range p.t.spaces {
		if !s.late {
			continue
		}
		err := s.attach()
		s.late = errors.Is(err, errLate)
		if err == nil {
			s.sums = nil
		} else if s.sums == nil {
			s.sums = newSums()
		}
	}
}

// Settle lists processes and mappings as they stand still.
func (t *tracker) Settle(ctx context.Context, sink Sink) (*Layout, error) {
	layout := &Layout{}
	_, err := t.pass(ctx, sink, func(p *pass) error {
		if err := p.refresh(false); err != nil {
			return err
		}
		for _, s := range t.spaces {
			if err := p.settle(s); err != nil {
				return err
			}
		}
		layout.Objects = t.listObjects()
		for _, s := range t.spaces {
			ranges := t.ranges(s)
			for _, task := range s.tasks {
				layout.Processes = append(layout.Processes, Process{PID: task.pid, VPID: task.pids[len(task.pids)-1], Space: s.id, Ranges: ranges})
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(layout.Processes, func(a, b Process) int { return cmp.Compare(a.PID, b.PID) })
	t.layout = layout
	return layout, nil
}

// ranges are the mappings of a space that are covered.
func (t *tracker) ranges(s *space) (all []Range) {
	for i := range s.vmas {
		v := &s.vmas[i]
		if !s.covers(v) && (v.class != shared || !t.has(v)) {
			continue
		}
		if n := len(all); n > 0 && all[n-1].End == v.start {
			all[n-1].End = v.end
		} else {
			all = append(all, Range{v.start, v.end})
		}
	}
	return all
}
