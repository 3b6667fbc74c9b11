package track

import (
	"fmt"
	"os"
)

// softMapping is a private mapping, and its pages with content.
type softMapping struct {
	vma
	regions []region
}

// walkSoft looks at the soft-dirty bits of a running process and clears them.
// That is two steps, so it stands still for both of them.
func (p *pass) walkSoft(s *space) error {
	var all []softMapping
	vmas := p.t.mappings(s)
	err := paused(s.tasks[0].pid, func() (err error) {
		vmas = p.t.mappings(s)
		if all, err = p.readSoft(s, vmas); err != nil {
			return err
		}
		return os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", s.tasks[0].tid), []byte("4"), 0)
	})
	// If it does not stop, or has ended, it is read as a whole.
	s.unsure = err != nil
	if err := p.forget(s, vmas); err != nil {
		return err
	}
	for i := range vmas {
		switch v := &vmas[i]; {
		case v.class == shared:
			p.share(s, v)
		case v.private() && s.unsure:
			if err := p.all(s, v); err != nil {
				return err
			}
		}
	}
	for i := range all {
		if s.unsure {
			break
		}
		if err := p.takeSoft(s, &all[i]); err != nil {
			return err
		}
	}
	return nil
}

// readSoft lists the pages of a process that have content.
func (p *pass) readSoft(s *space, vmas []vma) (all []softMapping, err error) {
	for i := range vmas {
		if !vmas[i].private() {
			continue
		}
		m := softMapping{vma: vmas[i]}
		q := p.t.scanner.content(&m.vma, 0, 0, isSoftDirty)
		if _, err := p.t.scanner.scan(s.pagemap, q, m.start, m.end, func(rs []region) error {
			m.regions = append(m.regions, rs...)
			return nil
		}); err != nil {
			return nil, err
		}
		all = append(all, m)
	}
	return all, nil
}

// takeSoft takes the pages of a mapping that are dirty or new.
func (p *pass) takeSoft(s *space, m *softMapping) error {
	p.own = m.class == fileCopy
	last := m.start
	for _, r := range m.regions {
		if err := p.absent(s, last, r.start); err != nil {
			return err
		}
		last = r.end
		take := p.takeMissing
		if r.categories&isSoftDirty != 0 {
			take = p.take
		}
		if err := take(s, r.start, r.end); err != nil {
			return err
		}
	}
	return p.absent(s, last, m.end)
}
