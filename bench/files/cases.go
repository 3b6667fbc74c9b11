package files

import (
	"fmt"
	"math"
	"os/exec"
	"slices"
	"strings"

	"github.com/vzkit/vzkit/bench/hosts"
	"github.com/vzkit/vzkit/internal/fault"
)

const (
	mib = 1 << 20
	gib = 1 << 30
)

// Names of the cases.
const (
	debianCold     = "debian-cold"
	smallCold      = "small-cold"
	smallUnchanged = "small-unchanged"
	frozen100      = "frozen-100"
	bigRewritten   = "big-rewritten"
	bigInserted    = "big-inserted"
	movedBack      = "moved-back"
	memory1m       = "memory"
	busyDatabase   = "busy-database"
)

// cases in the order of their rows.
var cases = []struct{ name, what string }{
	{debianCold, "a stopped Debian container, to a host that has nothing of it"},
	{smallCold, "200,000 small files in a running container, likewise"},
	{smallUnchanged, "the same once more, nothing changed"},
	{frozen100, "the frozen pass, 100 files changed of 200,000 and of 20,000"},
	{bigRewritten, "a file of 4 GiB at both hosts, 1 % of its blocks rewritten"},
	{bigInserted, "the same, 1 MiB inserted at its start"},
	{movedBack, "a Debian container moved back after 1 % of it was changed"},
	{memory1m, "memory of both sides for 1,000,000 empty files"},
	{busyDatabase, "downtime of PostgreSQL under load beside 200,000 small files and 2,000"},
}

// Numbers at scale 1.
const (
	manySmall = 200_000
	fewSmall  = 20_000
	besideFew = 2_000 // beside a database
	manyEmpty = 1_000_000
	bigSize   = 4 * gib
)

// play is how some cases are measured: a scene is set, and runs repeated in it.
type play struct {
	name  string
	cases []string
	every int        // of --runs, so many make one run
	need  hosts.Need // beside what each lab takes, at scale 1
	scene func(*stage) scene
}

var plays = []play{
	{"debian", []string{debianCold}, 1, hosts.Need{Bytes: 2 * gib}, newDebian},
	{"small files", []string{smallCold, smallUnchanged}, 1, hosts.Need{Bytes: 4 * gib, Inodes: 3 * manySmall}, newSmall},
	{"frozen pass, many files", []string{frozen100}, 1, hosts.Need{Bytes: 4 * gib, Inodes: 3 * manySmall},
		func(s *stage) scene { return newFrozen(s, manySmall) }},
	{"frozen pass, few files", []string{frozen100}, 1, hosts.Need{Bytes: gib, Inodes: 3 * fewSmall},
		func(s *stage) scene { return newFrozen(s, fewSmall) }},
	{"big file", []string{bigRewritten, bigInserted}, 3, hosts.Need{Bytes: 6 * bigSize}, newBig},
	{"moved back", []string{movedBack}, 1, hosts.Need{Bytes: 4 * gib}, newMovedBack},
	{"memory", []string{memory1m}, 3, hosts.Need{Bytes: 4 * gib, Inodes: 2 * manyEmpty}, newMemory},
	{"busy database", []string{busyDatabase}, 1, hosts.Need{Bytes: 8 * gib, Inodes: 3 * manySmall}, newDatabase},
}

// Names are those of all cases.
func Names() (names []string) {
	for _, c := range cases {
		names = append(names, c.name)
	}
	return names
}

// Describe lists the cases for a help text, one a line.
func Describe() string {
	var b strings.Builder
	for _, c := range cases {
		fmt.Fprintf(&b, "  %-16s %s\n", c.name, c.what)
	}
	return b.String()
}

const (
	maxRuns  = 1000
	maxScale = 100
)

// Check refuses what cannot be measured.
func (c Config) Check() error {
	for _, name := range c.Cases {
		if !slices.Contains(Names(), name) {
			return fault.New(fault.BadValue, "case %q unknown", name).WithHint("Choose from %s.", strings.Join(Names(), ", "))
		}
	}
	switch {
	case len(c.Cases) == 0:
		return fault.New(fault.BadValue, "no case").WithHint("Choose from %s.", strings.Join(Names(), ", "))
	case c.Runs < 1 || c.Runs > maxRuns:
		return fault.New(fault.BadValue, "number of runs %d out of range", c.Runs).WithHint("Give 1 to %d.", maxRuns)
	case !(c.Scale > 0 && c.Scale <= maxScale): // NaN is neither
		return fault.New(fault.BadValue, "scale %g out of range", c.Scale).WithHint("Give more than 0, at most %d.", maxScale)
	}
	if _, err := exec.LookPath("rsync"); err != nil {
		return fault.New(fault.NoEngine, "no rsync on this machine").WithHint("Install it with: scripts/setup bench")
	}
	return c.checkSpace()
}

// checkSpace refuses a file system that is too small for one of the cases.
func (c Config) checkSpace() error {
	for _, p := range plays {
		if !c.plays(p) {
			continue
		}
		if err := c.need(p).Check(c.Dir); err != nil {
			return err
		}
	}
	return nil
}

// need is what a play takes at the scale asked for, with the system that is in
// its containers.
func (c Config) need(p play) hosts.Need {
	return hosts.Need{
		Bytes:  gib + uint64(float64(p.need.Bytes)*c.Scale),
		Inodes: 200_000 + uint64(float64(p.need.Inodes)*c.Scale),
	}
}

// plays tells whether any of a play's cases is asked for.
func (c Config) plays(p play) bool {
	return slices.ContainsFunc(p.cases, c.has)
}

// has tells whether a case is asked for.
func (c Config) has(name string) bool { return slices.Contains(c.Cases, name) }

// runs is how often a play is run.
func (c Config) runs(p play) int { return (c.Runs + p.every - 1) / p.every }

// scaled is a number at the scale asked for, and at least that.
func (c Config) scaled(n, least int) int { return max(least, int(math.Round(float64(n)*c.Scale))) }
