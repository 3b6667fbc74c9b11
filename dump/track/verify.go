package track

import (
	"bytes"
	"errors"
	"fmt"
	"math"

	"golang.org/x/sys/unix"
)

const (
	maxDifferences = 8
	// verifyAbsent is how many bytes are looked at from each end of a piece of
	// a mapping without pages: reservations may be terabytes.
	verifyAbsent = 2 << 20
)

// Verify compares all that t has taken with what read says was passed on, after
// Finish and with the container still frozen. read fills in a page, with zeros
// where there is none. The error tells of the first differences.
func Verify(t Tracker, read func(space, address uint64, page []byte) error) error {
	mine, ok := t.(*tracker)
	if !ok || mine.layout == nil {
		return fmt.Errorf("tracker %q has nothing to verify", t.Name())
	}
	v := &verifier{t: mine, read: read}
	for _, s := range mine.spaces {
		if err := v.space(s); err != nil {
			return err
		}
	}
	for file, o := range mine.objects {
		if o.seen {
			if err := v.object(file, o); err != nil {
				return err
			}
		}
	}
	if v.differences == 0 {
		return nil
	}
	return fmt.Errorf("%d pages differ from what was passed on: %w", v.differences, errors.Join(v.first...))
}

type verifier struct {
	t           *tracker
	read        func(space, address uint64, page []byte) error
	got, want   [PageSize]byte
	differences int
	first       []error
}

// space compares a process's private mappings.
func (c *verifier) space(s *space) error {
	for i := range s.vmas {
		v := &s.vmas[i]
		if !s.covers(v) {
			continue
		}
		last := v.start
		_, err := c.t.scanner.scan(s.pagemap, c.t.scanner.content(v, 0, 0, 0), v.start, v.end, func(rs []region) error {
			for _, r := range rs {
				if err := c.absent(s, v, last, r.start); err != nil {
					return err
				}
				if err := c.present(s, v, r); err != nil {
					return err
				}
				last = r.end
			}
			return nil
		})
		if err == nil {
			err = c.absent(s, v, last, v.end)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// absent wants nothing where the process has nothing.
func (c *verifier) absent(s *space, v *vma, start, end uint64) error {
	for at := start; at < end; at += PageSize {
		if at == start+verifyAbsent && end-at > verifyAbsent {
			at = end - verifyAbsent
		}
		if err := c.page(s.id, at, zeroPage[:], func() string { return s.line(v) }); err != nil {
			return err
		}
	}
	return nil
}

// present compares pages. CRIU writes to executable ones of files and puts the
// content back: they are other pages then, and not passed on.
func (c *verifier) present(s *space, v *vma, r region) error {
	page := c.want[:]
	for at := r.start; at < r.end; at += PageSize {
		if _, taken := s.have.look(at); !taken && v.exec && v.class == fileCopy {
			continue
		}
		if n, err := unix.Pread(s.mem, page, int64(at)); err != nil || n < PageSize {
			clear(page)
		}
		if err := c.page(s.id, at, page, func() string { return s.line(v) }); err != nil {
			return err
		}
	}
	return nil
}

// object compares all pages of a shared memory object.
func (c *verifier) object(file fileKey, o *object) error {
	name := func() string { return fmt.Sprintf("shared memory object %d", file.ino) }
	page := c.want[:]
	for at := uint64(0); at < o.size; at += PageSize {
		if err := o.read(page, at); err != nil {
			return err
		}
		if err := c.page(o.id, at, page, name); err != nil {
			return err
		}
	}
	return nil
}

// page compares one page.
func (c *verifier) page(space, at uint64, want []byte, where func() string) error {
	got := c.got[:]
	if err := c.read(space, at, got); err != nil {
		return fmt.Errorf("read what was passed on of space %d at %#x: %w", space, at, err)
	}
	if bytes.Equal(got, want) {
		return nil
	}
	c.differences++
	if len(c.first) < maxDifferences {
		i := 0
		for got[i] == want[i] {
			i++
		}
		c.first = append(c.first, fmt.Errorf("%s: page %#x, byte %d is %#x and was passed on as %#x", where(), at, i, want[i], got[i]))
	}
	return nil
}

// line names a mapping as /proc/PID/maps does.
func (s *space) line(v *vma) string {
	name := fmt.Sprintf("process %d", s.tasks[0].pid)
	text, err := readAll(s.maps, nil)
	if err != nil {
		return name
	}
	want := fmt.Appendf(nil, "%08x-", v.start)
	for len(text) > 0 {
		i := bytes.IndexByte(text, '\n')
		if i < 0 {
			i = len(text) - 1
		}
		if bytes.HasPrefix(text, want) {
			return name + ", " + string(text[:min(i, math.MaxInt16)])
		}
		text = text[i+1:]
	}
	return name
}
