package track

import (
	"context"
	"errors"

	"golang.org/x/sys/unix"
)

// covers tells whether a mapping's own pages are tracked.
func (s *space) covers(v *vma) bool {
	if !v.private() {
		return false
	}
	for _, b := range s.busy {
		if v.start < b.end && b.start < v.end {
			return false
		}
	}
	return true
}

// walk looks at a running process.
func (p *pass) walk(s *space) error {
	if s.soft {
		return p.walkSoft(s)
	}
	vmas := p.t.mappings(s)
	if len(vmas) == 0 {
		return nil // it has just ended; the next refresh drops it
	}
	s.busy = s.busy[:0]
	if err := p.forget(s, vmas); err != nil {
		return err
	}
	unsure := s.unsure
	s.unsure = false
	var ours, common []span
	for i := range vmas {
		v := &vmas[i]
		watched, err := p.look(s, v, unsure)
		switch {
		case err != nil:
			return err
		case watched && v.class == shared:
			common = join(common, v.start, v.end)
		case watched:
			ours = join(ours, v.start, v.end)
		}
	}
	s.ours, s.common = ours, common
	return nil
}

// look looks at a mapping of a running process, and tells whether the kernel
// will note writes to it.
func (p *pass) look(s *space, v *vma, unsure bool) (watched bool, err error) {
	p.own = v.class == fileCopy
	switch {
	case v.class == shared:
		return p.share(s, v), nil
	case v.private() && s.uffd >= 0:
		return p.written(s, v, unsure)
	case v.private():
		return false, p.all(s, v)
	}
	return false, nil
}

// sweep finds pages with content from an address to the end of a mapping, and
// notes that there is nothing between them. It returns how far it came, for an
// error of the kernel.
func (p *pass) sweep(s *space, v *vma, start uint64, q query, take func(region) error) (at uint64, err error) {
	last := start
	at, err = p.t.scanner.scan(s.pagemap, q, start, v.end, func(rs []region) error {
		for _, r := range rs {
			if err := p.absent(s, last, r.start); err != nil {
				return err
			}
			if err := take(r); err != nil {
				return err
			}
			last = r.end
		}
		return nil
	})
	if err != nil {
		return at, err
	}
	return at, p.absent(s, last, v.end)
}

// all takes all pages of a mapping.
func (p *pass) all(s *space, v *vma) error {
	p.own = v.class == fileCopy
	_, err := p.sweep(s, v, v.start, p.t.scanner.content(v, 0, 0, 0), func(r region) error {
		return p.take(s, r.start, r.end)
	})
	return p.mine(err)
}

// mine is an error that is not the kernel's: those only mean that the process
// is ending.
func (p *pass) mine(err error) error {
	var errno unix.Errno
	if errors.As(err, &errno) && context.Cause(p.ctx) == nil {
		return nil
	}
	return err
}

// written takes the written pages of a mapping and write-protects them. Where
// the kernel knows of no protection yet, all are taken. The protection comes
// before the copying: what is written after it is found next time.
func (p *pass) written(s *space, v *vma, unsure bool) (watched bool, err error) {
	const flags = wpMatching | checkWPAsync
	take := func(r region) error { return p.take(s, r.start, r.end) }
	at := v.start
	switch {
	case !s.owns(v):
		err = unix.EPERM // it may be somebody else's, who needs what a scan takes
	case unsure:
		at, err = p.sweep(s, v, at, p.t.scanner.content(v, flags, 0, 0), take)
	default:
		at, err = p.t.scanner.scan(s.pagemap, p.t.scanner.content(v, flags, isWritten, 0), at, v.end, each(take))
	}
	for try := 0; err == unix.EPERM; try++ {
		if try == 3 { // mappings change faster than they are looked at
			s.unsure = true
			return false, nil
		}
		ok, err2 := p.claim(s, v, at)
		if !ok || err2 != nil {
			return false, err2
		}
		at, err = p.sweep(s, v, at, p.t.scanner.content(v, flags, 0, 0), take)
	}
	if err != nil && p.mine(err) == nil {
		s.unsure = true // some may have been protected, and not been told
	}
	return err == nil, p.mine(err)
}

// each makes a function for regions of one for a region.
func each(do func(region) error) func([]region) error {
	return func(rs []region) error {
		for _, r := range rs {
			if err := do(r); err != nil {
				return err
			}
		}
		return nil
	}
}

var errFound = errors.New("found")

// claim registers a mapping from an address on. What belongs to a userfaultfd
// of the process itself, or cannot be tracked, stays untouched. So do copies of
// files that have no pages of their own: nobody writes to most of them, and
// faults in registered ones are slower. Of others also empty ones are
// registered, since the kernel does not merge them with ones that are not.
func (p *pass) claim(s *space, v *vma, start uint64) (ok bool, err error) {
	err = errFound
	if v.class == fileCopy {
		_, err = p.t.scanner.scan(s.pagemap, p.t.scanner.content(v, 0, 0, 0), start, v.end, func([]region) error { return errFound })
	}
	if err == errFound {
		err = s.registerAll(v)
		if err == nil {
			return true, nil
		}
		if err == unix.EBUSY || err == unix.EINVAL || err == unix.EPERM {
			s.busy = append(s.busy, span{v.start, v.end})
		}
	}
	return false, p.absent(s, start, v.end)
}
