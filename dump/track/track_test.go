package track_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vzkit/vzkit/dump/track"
)

var kinds = []string{track.UffdWP, track.SoftDirty, track.Hash}

// TestSteps does one thing between two rounds, and another before the freeze.
func TestSteps(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			c := newContainer(t)
			tr := c.open(kind)
			r := newRecorder()
			round(t, tr, r)
			for step := range doings {
				if step == "see writes" {
					continue
				}
				s := c.start("steps")
				round(t, tr, r)
				s.do("write")
				round(t, tr, r)
				if step == "execute" {
					fmt.Fprintln(s.in, step)
					s.ready()
				} else {
					s.do(step)
				}
				layout, _ := c.last(tr, r)
				if err := track.Verify(tr, r.read); err != nil {
					t.Errorf("after %q: %v", step, err)
				}
				if n := r.strays(layout); n > 0 {
					t.Errorf("after %q: %d pages are kept that nobody has", step, n)
				}
				if !slices.ContainsFunc(layout.Processes, func(p track.Process) bool { return p.PID == s.pid }) {
					t.Errorf("after %q: process is not in the layout", step)
				}
				c.freeze(false)
				if !slices.Contains([]string{"unmap", "forbid", "replace by file", "guard", "execute", "leader ends"}, step) {
					s.do("write")
					round(t, tr, r)
				}
				c.last(tr, r)
				if err := track.Verify(tr, r.read); err != nil {
					t.Errorf("some time after %q: %v", step, err)
				}
				c.freeze(false)
				c.kill()
			}
		})
	}
}

// TestHostile runs rounds over a container that does all at once.
func TestHostile(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			c := newContainer(t)
			tr := c.open(kind)
			for mode := range loads {
				if mode != "init" {
					c.start(mode)
				}
			}
			r := newRecorder()
			for range 3 {
				for end := time.Now().Add(300 * time.Millisecond); time.Now().Before(end); {
					round(t, tr, r)
				}
				layout, rest := c.last(tr, r)
				if err := track.Verify(tr, r.read); err != nil {
					t.Fatal(err)
				}
				t.Logf("%d processes, %d objects, %d pages and %d zero at last", len(layout.Processes), len(layout.Objects), rest.Pages, rest.Zero)
				c.freeze(false)
			}
		})
	}
}

// TestVerifyFindsLoss proves that the other tests can fail.
func TestVerifyFindsLoss(t *testing.T) {
	for _, kind := range []string{track.UffdWP, track.Hash} {
		for what, step := range map[string]string{"private": "write", "shared": "write shared", "zero": "drop"} {
			c := newContainer(t)
			s := c.start("steps")
			tr := c.open(kind)
			r := newRecorder()
			round(t, tr, r)
			r.drop = func(run track.Run) bool {
				return what == "zero" == (run.Data == nil) && what == "shared" == (run.Space&track.Shared != 0)
			}
			s.do(step)
			c.last(tr, r)
			err := track.Verify(tr, r.read)
			if r.lost == 0 || err == nil {
				t.Errorf("%s: %d runs lost of %s memory, and no difference found: %v", kind, r.lost, what, err)
			}
			place := regexp.MustCompile(`process \d+, [0-9a-f]+-[0-9a-f]+ r[w-][x-]p .*: page 0x[0-9a-f]+, byte`)
			if what == "private" && err != nil && !place.MatchString(err.Error()) {
				t.Errorf("difference has no place: %v", err)
			}
		}
	}
}

// TestOnlyWritten: later rounds are as small as what was written.
func TestOnlyWritten(t *testing.T) {
	c := newContainer(t)
	s := c.start("steps")
	tr := c.open(track.UffdWP)
	r := newRecorder()
	first := round(t, tr, r)
	if first.Pages < 1000 {
		t.Errorf("first round has %d pages", first.Pages)
	}
	round(t, tr, r)
	s.do("write")
	s.do("write shared")
	dirty := tr.Dirty()
	again := round(t, tr, r)
	if again.Pages < 4 || again.Pages > 200 || dirty < 4 || dirty > 200 {
		t.Errorf("4 pages were written: %d dirty, %d passed on", dirty, again.Pages)
	}
	s.do("forked writer") // read again, but only what differs is passed on
	if churn := round(t, tr, r); churn.Pages > 200 {
		t.Errorf("a child wrote one page: %d passed on", churn.Pages)
	}
}

// TestForeignWatch: what a process watches by itself is not touched.
func TestForeignWatch(t *testing.T) {
	c := newContainer(t)
	s := c.start("steps")
	s.do("watch writes")
	tr := c.open(track.UffdWP)
	r := newRecorder()
	round(t, tr, r)
	round(t, tr, r)
	s.do("see writes")
}

// TestLayout looks at what is said to be covered.
func TestLayout(t *testing.T) {
	for _, kind := range []string{track.UffdWP, track.Hash} {
		c := newContainer(t)
		s := c.start("steps")
		s.do("own userfaultfd")
		tr := c.open(kind)
		r := newRecorder()
		round(t, tr, r)
		layout, _ := c.last(tr, r)
		i := slices.IndexFunc(layout.Processes, func(p track.Process) bool { return p.PID == s.pid })
		if len(layout.Processes) != 3 || i < 0 || layout.Processes[i].VPID != s.vpid || len(layout.Objects) != 3 {
			t.Fatalf("%s: process %d in the container, layout is %+v", kind, s.vpid, layout)
		}
		ranges := layout.Processes[i].Ranges
		covered := func(start uint64) bool {
			return slices.ContainsFunc(ranges, func(r track.Range) bool { return r.Start <= start && start < r.End })
		}
		for _, line := range mapsOf(t, s.pid) {
			var start uint64
			var flags string
			if _, err := fmt.Sscanf(line, "%x-%s", &start, &flags); err != nil {
				t.Fatal(err)
			}
			for name, want := range map[string]bool{
				"[vdso]": false, "[vvar]": false, "[stack]": true, "/dev/zero (deleted)": true, "/memfd:closed": true, "/memfd:open": false,
			} {
				if strings.Contains(line, name) && covered(start) != want {
					t.Errorf("%s: covered is not %v: %s", kind, want, line)
				}
			}
		}
		for i, r := range ranges {
			if r.Start >= r.End || i > 0 && ranges[i-1].End >= r.Start {
				t.Errorf("%s: range %d is %+v", kind, i, r)
			}
		}
	}
}

func mapsOf(t *testing.T, pid int) []string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(text)), "\n")
}

// TestOwn: pages in place of a file's are marked, in rounds and in the last one.
func TestOwn(t *testing.T) {
	for _, kind := range []string{track.UffdWP, track.Hash} {
		for _, early := range []bool{true, false} {
			c := newContainer(t)
			s := c.start("steps")
			tr := c.open(kind)
			r := newRecorder()
			if early {
				round(t, tr, r)
			}
			s.do("write copy")
			layout, _ := c.last(tr, r)
			i := slices.IndexFunc(layout.Processes, func(p track.Process) bool { return p.PID == s.pid })
			marked := 0
			for _, line := range mapsOf(t, s.pid) {
				var start, end, offset, inode uint64
				var flags, device string
				if _, err := fmt.Sscanf(line, "%x-%x %s %x %s %d", &start, &end, &flags, &offset, &device, &inode); err != nil {
					t.Fatal(err)
				}
				for key := range r.pages {
					at := key[1]
					if key[0] != layout.Processes[i].Space || at < start || at >= end || flags[3] != 'p' {
						continue
					}
					if r.own[key] != (inode != 0) {
						t.Fatalf("%s: page %#x is marked %v: %s", kind, at, r.own[key], line)
					} else if inode != 0 {
						marked++
					}
				}
			}
			if marked < 10 {
				t.Errorf("%s: %d pages are marked", kind, marked)
			}
		}
	}
}

// TestNothingIsLeft compares a process before and after.
func TestNothingIsLeft(t *testing.T) {
	c := newContainer(t)
	s := c.start("steps")
	c.freeze(true) // the Go runtime would change its mappings
	maps, files := mapsOf(t, s.pid), filesOf(t, s.pid)
	c.freeze(false)
	tr := c.open(track.UffdWP)
	r := newRecorder()
	round(t, tr, r)
	if !strings.Contains(smaps(t, s.pid), " uw") {
		t.Fatal("nothing is registered")
	}
	if got := filesOf(t, s.pid); !slices.Equal(got, files) {
		t.Errorf("while tracked, files are %q, not %q", got, files)
	}
	if err := tr.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := tr.Round(context.Background(), r); err == nil {
		t.Error("a closed tracker goes on")
	}
	if strings.Contains(smaps(t, s.pid), " uw") {
		t.Error("mappings stay registered")
	}
	if got := filesOf(t, s.pid); !slices.Equal(got, files) {
		t.Errorf("files are %q, not %q", got, files)
	}
	if got := mapsOf(t, s.pid); !slices.Equal(got, maps) {
		t.Errorf("mappings are\n%s\nnot\n%s", strings.Join(got, "\n"), strings.Join(maps, "\n"))
	}
	s.do("write")
}

func smaps(t *testing.T, pid int) string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps", pid))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func filesOf(t *testing.T, pid int) (all []string) {
	t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		to, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", pid, e.Name()))
		all = append(all, e.Name()+" "+to)
	}
	return all
}

type failing struct{}

func (failing) Pages(track.Run) error { return errFailing }

var errFailing = errors.New("wire is cut")

// TestErrorsEndTracking: what a failed round has taken is not found again.
func TestErrorsEndTracking(t *testing.T) {
	c := newContainer(t)
	c.start("steps")
	tr := c.open(track.UffdWP)
	if _, err := tr.Round(context.Background(), failing{}); !errors.Is(err, errFailing) {
		t.Errorf("round with a failing sink: %v", err)
	}
	if _, err := tr.Round(context.Background(), newRecorder()); !errors.Is(err, errFailing) {
		t.Errorf("round after it: %v", err)
	}
	tr = c.open(track.UffdWP)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := tr.Round(ctx, newRecorder()); !errors.Is(err, context.Canceled) {
		t.Errorf("round with a cancelled context: %v", err)
	}
}

func TestOpen(t *testing.T) {
	if _, _, err := track.Open("magic", track.Options{}); err == nil {
		t.Error("a tracker that does not exist was opened")
	}
	best, why := track.Probe()
	tr, reasons, err := track.Open("auto", track.Options{Pids: func() ([]int, error) { return nil, nil }})
	if err != nil || tr.Name() != best || reasons != why {
		t.Fatalf("auto is %v, %q, %v, not %q, %q", tr, reasons, err, best, why)
	}
	if (best == track.UffdWP) != (why == "") {
		t.Errorf("best is %q, because of %q", best, why)
	}
	if err := tr.Close(); err != nil {
		t.Error(err)
	}
}
