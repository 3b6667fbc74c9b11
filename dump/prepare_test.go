package dump

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/vzkit/vzkit/dump/track"
	"github.com/vzkit/vzkit/internal/criu"
	"github.com/vzkit/vzkit/internal/fault"
)

// prepare begins a dump of the container, which runs.
func (c *container) prepare(config Config) *Prepared {
	c.t.Helper()
	p, err := Prepare(config, c.pids())
	must(c.t, err)
	c.t.Cleanup(p.Close)
	return p
}

// wantUnharmed makes sure that the container is frozen with all its processes,
// and that they go on.
func (c *container) wantUnharmed(pids []int) {
	c.t.Helper()
	if frozen, err := c.freezer.Frozen(); err != nil || !frozen {
		c.t.Errorf("frozen %v, %v", frozen, err)
	}
	if now := c.pids(); fmt.Sprint(now) != fmt.Sprint(pids) {
		c.t.Errorf("processes %v, want %v", now, pids)
	}
	must(c.t, c.freezer.Thaw())
	c.signal(syscall.SIGUSR2)
}

func TestDumpModes(t *testing.T) {
	const private, shared = 70, 5 // MiB
	for _, test := range []struct {
		mode    Mode
		options string
	}{
		{Described, ""}, {Described, "seccomp"}, {Described, "many"}, {Stock, ""}, {Stock, "seccomp"}, {Copied, ""},
	} {
		t.Run(string(test.mode)+" "+test.options, func(t *testing.T) {
			c := start(t, private, shared, test.options)
			config, took := c.config(test.mode)
			p := c.prepare(config)
			if mode, reason := p.Mode(); mode != test.mode || reason != "" {
				t.Errorf("mode %q because of %q", mode, reason)
			}
			c.freeze()
			pids, layout := c.pids(), c.layout()
			stats, err := p.Dump(t.Context(), layout)
			must(t, err)
			must(t, p.CheckFlags())
			switch test.mode {
			case Described:
				took.wantNothingOf(t, layout)
				if stats.Hidden == 0 || took.pages[SpaceTask] == 0 || took.pages[SpaceTask] > 16*uint64(len(pids)) || took.pages[SpaceShmem] != 0 {
					t.Errorf("%d questions answered, pages %v", stats.Hidden, took.pages)
				}
			case Stock:
				if copied := took.copied(); len(took.runs) > 0 || copied < shared<<20 || copied > (shared+2)<<20 {
					t.Errorf("%d runs, %d bytes of pages in images", len(took.runs), copied)
				}
			case Copied:
				if took.pages[SpaceTask] < private<<8 || took.pages[SpaceShmem] != shared<<8 {
					t.Errorf("pages %v", took.pages)
				}
			}
			for _, name := range []string{"inventory.img", "pstree.img", "core-1.img", "mm-1.img", "memfd.img"} {
				if took.images[name] == 0 {
					t.Errorf("no image %q", name)
				}
			}
			c.wantUnharmed(pids)
		})
	}
}

// wantNothingOf makes sure that no run has a page that is in the layout.
func (s *took) wantNothingOf(t *testing.T, l *track.Layout) {
	t.Helper()
	for _, r := range s.runs {
		end := r.Address + uint64(r.Count)*PageSize
		for _, hidden := range l.Processes[0].Ranges {
			if r.Space == SpaceTask && r.ID == 1 && r.Address < hidden.End && hidden.Start < end {
				t.Errorf("run at %#x is in %#x", r.Address, hidden)
			}
		}
	}
}

// copied is how many bytes of pages are in images.
func (s *took) copied() (bytes int) {
	for name, size := range s.images {
		if strings.HasPrefix(name, "pages-") {
			bytes += size
		}
	}
	return bytes
}

// What is not in the layout is copied.
func TestDescribedTakesTheRest(t *testing.T) {
	c := start(t, 6, 2, "")
	config, took := c.config(Described)
	p := c.prepare(config)
	c.freeze()
	_, err := p.Dump(t.Context(), &track.Layout{})
	must(t, err)
	if took.pages[SpaceTask] < 6<<8 || took.pages[SpaceShmem] != 2<<8 {
		t.Errorf("pages %v", took.pages)
	}
}

// Mappings that change between Prepare and the freeze are dumped as they are;
// flags that change unseen are found afterwards.
func TestDescribedChecks(t *testing.T) {
	for s, wrong := range map[syscall.Signal]bool{syscall.SIGUSR1: true, syscall.SIGUSR2: false} {
		t.Run(s.String(), func(t *testing.T) {
			c := start(t, 70, 0, "")
			config, _ := c.config(Described)
			p := c.prepare(config)
			if len(p.view.copies) != 1 {
				t.Fatalf("%d copies", len(p.view.copies))
			}
			c.signal(s)
			c.freeze()
			_, err := p.Dump(t.Context(), c.layout())
			must(t, err)
			if err := p.CheckFlags(); (err != nil) != wrong {
				t.Errorf("check: %v", err)
			}
			log, err := os.ReadFile(filepath.Join(config.Dir, logName))
			must(t, err)
			if mapped := strings.Contains(string(log), "smaps entry: ") && strings.Contains(string(log), "/null2"); mapped == wrong {
				t.Errorf("CRIU sees the new mapping: %v", mapped)
			}
		})
	}
}

// A dump that is refused at the end leaves the container as it was.
func TestThenRefuses(t *testing.T) {
	for _, mode := range Modes {
		t.Run(string(mode), func(t *testing.T) {
			c := start(t, 6, 2, "")
			config, _ := c.config(mode)
			refusal := errors.New("not today")
			config.Then = func(Stats) error { return refusal }
			p := c.prepare(config)
			c.freeze()
			pids := c.pids()
			if _, err := p.Dump(t.Context(), c.layout()); !errors.Is(err, refusal) {
				t.Errorf("error %v", err)
			}
			c.wantUnharmed(pids)
		})
	}
}

// What cannot be dumped gives CRIU's reason, in each mode.
func TestDumpFails(t *testing.T) {
	for _, mode := range Modes {
		t.Run(string(mode), func(t *testing.T) {
			c := start(t, 6, 0, "")
			config, _ := c.config(mode)
			config.Init = 1 << 22 // above the greatest pid
			p := c.prepare(config)
			c.freeze()
			if _, err := p.Dump(t.Context(), c.layout()); fault.KindOf(err) != fault.Checkpoint {
				t.Errorf("error %v", err)
			}
		})
	}
}

func TestPrepareAndClose(t *testing.T) {
	for _, mode := range Modes {
		t.Run(string(mode), func(t *testing.T) {
			c := start(t, 70, 0, "")
			config, _ := c.config(mode)
			p := c.prepare(config)
			p.Close()
			p.Close()
			c.freeze()
			c.wantUnharmed(c.pids())
		})
	}
}

func TestChoose(t *testing.T) {
	path, err := criu.Find()
	must(t, err)
	if mode, reason, err := Choose("", path); err != nil || (mode == Described) != (reason == "") {
		t.Errorf("chose %q because of %q, %v", mode, reason, err)
	}
	for _, mode := range []Mode{Stock, Copied} {
		if got, _, err := Choose(mode, path); err != nil || got != mode {
			t.Errorf("chose %q for %q, %v", got, mode, err)
		}
	}
	if mode, reason, err := Choose("", "/bin/true"); mode != Stock || reason == "" || err != nil {
		t.Errorf("chose %q because of %q, %v", mode, reason, err)
	}
	if _, _, err := Choose(Described, "/bin/true"); fault.KindOf(err) != fault.NoEngine {
		t.Errorf("described without criu: %v", err)
	}
	if _, _, err := Choose("best", path); fault.KindOf(err) != fault.Usage {
		t.Errorf("unknown mode: %v", err)
	}
}
