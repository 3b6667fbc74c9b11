package files

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/vzkit/vzkit/internal/treecheck"
)

var (
	seeds     = flag.Uint64("seeds", 24, "move so many random trees")
	firstSeed = flag.Uint64("seed", 0, "the first of them")
)

// TestRandomTrees moves random trees in passes between random changes and
// compares after each.
func TestRandomTrees(t *testing.T) {
	for seed := *firstSeed; seed < *firstSeed+*seeds; seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			moveRandom(t, seed, treecheck.Options{
				Flags: carriesFlags && seed%2 == 0,
				Deep:  seed%4 == 1,
				Large: seed%8 == 2,
			})
		})
	}
}

func moveRandom(t *testing.T, seed uint64, o treecheck.Options) {
	const passes = 5
	g := plant(t, seed, o)
	m := newMover(t, g.root)
	r := rand.New(rand.NewPCG(seed, 5))
	for pass := 1; ; pass++ {
		m.pass(PassOptions{Frozen: pass == passes, All: o.Flags}) // changes of flags raise no event
		m.compare()
		if t.Failed() {
			t.Fatalf("after pass %d, changes\n%s", pass, strings.Join(g.log, "\n"))
		}
		if pass == passes {
			break
		}
		g.mutate(r.IntN(20))
	}
	if !o.Deep { // rsync stops at PATH_MAX
		compareByRsync(t, m.src, m.dst)
	}
}
