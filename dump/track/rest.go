package track

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// settle lists the mappings of a frozen process and takes what its dump may
// disturb.
func (p *pass) settle(s *space) error {
	s.vmas = append(s.vmas[:0], p.t.mappings(s)...)
	for i := range s.vmas {
		v := &s.vmas[i]
		switch {
		case v.class == shared:
			p.note(s, v)
		case v.exec && s.covers(v):
			if err := p.rest(s, v); err != nil {
				return err
			}
		}
	}
	return nil
}

// finish takes the rest of a frozen process.
func (p *pass) finish(s *space) error {
	if err := p.forget(s, s.vmas); err != nil {
		return err
	}
	for i := range s.vmas {
		v := &s.vmas[i]
		switch {
		case v.class == shared:
			p.gather(s, v, false)
		case !v.exec && s.covers(v):
			if err := p.rest(s, v); err != nil {
				return err
			}
		}
	}
	return nil
}

// rest takes the pages of a mapping that may differ from what was passed on,
// and finds those that went away: the kernel does not tell of all of them.
func (p *pass) rest(s *space, v *vma) error {
	p.own = v.class == fileCopy
	var err error
	owned := v.class == anonymous && s.uffd >= 0 && !s.unsure && s.owns(v)
	if owned {
		err = p.restOwned(s, v)
	}
	if !owned || err == unix.EPERM {
		err = p.restAny(s, v)
	}
	if err != nil && p.mine(err) == nil {
		return fmt.Errorf("look at pages of process %d at %#x: %w", s.tasks[0].pid, v.start, err)
	}
	return err
}

// restOwned asks for what is written, and then for what is not there. It is
// faster than to look at all pages. EPERM means that the mapping is not
// registered any more: mremap(2) to its side merges both and lets go of both,
// and then their pages, wherever they move, pass for protected ones though
// anybody writes to them (Linux 6.18).
func (p *pass) restOwned(s *space, v *vma) error {
	const there = isPresent | isSwapped
	not := isPFNZero | p.t.scanner.guard
	q := query{flags: checkWPAsync, mask: isWritten, anyOf: there, ret: isWritten | not}
	_, err := p.t.scanner.scan(s.pagemap, q, v.start, v.end, each(func(r region) error {
		if r.categories&not != 0 {
			return p.absent(s, r.start, r.end)
		}
		return p.take(s, r.start, r.end)
	}))
	if err != nil {
		return err
	}
	q = query{inverted: there, mask: there, ret: isPresent | isSwapped | isWPAllowed}
	_, err = p.t.scanner.scan(s.pagemap, q, v.start, v.end, each(func(r region) error {
		return p.absent(s, r.start, r.end)
	}))
	return err
}

// restAny looks at all pages.
func (p *pass) restAny(s *space, v *vma) error {
	var unclear []span
	q := p.t.scanner.content(v, 0, 0, isWritten|isWPAllowed|isSoftDirty)
	_, err := p.sweep(s, v, v.start, q, func(r region) error {
		switch {
		case v.class == fileCopy && r.categories&isSwapped != 0:
			unclear = append(unclear, span{r.start, r.end})
			return nil
		case s.mayDiffer(v, r.categories):
			return p.take(s, r.start, r.end)
		}
		return p.takeMissing(s, r.start, r.end)
	})
	for i := 0; i < len(unclear) && err == nil; i++ {
		err = p.clear(s, v, unclear[i])
	}
	return err
}

// clear takes pages of a copy of a file that read as swapped: some may have
// been given back to the file, and have only left a marker. Reading tells.
func (p *pass) clear(s *space, v *vma, u span) error {
	var b [1]byte
	for at := u.start; at < u.end; at += PageSize {
		_, _ = unix.Pread(s.mem, b[:], int64(at))
	}
	part := *v
	part.start, part.end = u.start, u.end
	return p.all(s, &part)
}

// takeMissing takes the pages that were never passed on.
func (p *pass) takeMissing(s *space, start, end uint64) (err error) {
	s.have.missing(start, end, func(m span) {
		if err == nil {
			err = p.take(s, m.start, m.end)
		}
	})
	return err
}

// mayDiffer tells whether pages of these categories may have changed.
func (s *space) mayDiffer(v *vma, c uint64) bool {
	switch {
	case s.sums != nil || s.unsure:
		return true
	case s.soft:
		return c&isSoftDirty != 0
	case s.uffd >= 0:
		return c&isWPAllowed == 0 || c&isWritten != 0 || !s.owns(v)
	}
	return true
}
