package files

import (
	"path/filepath"
	"testing"

	"github.com/vzkit/vzkit/internal/treecheck"
)

// gardener grows a tree and changes it at random.
type gardener struct {
	t    *testing.T
	root string
	*treecheck.Mutator
	log []string // the changes since plant
}

// plant generates a tree in a temporary directory. All temporary directories
// of the test are unsealed at its end.
func plant(t *testing.T, seed uint64, o treecheck.Options) *gardener {
	t.Helper()
	root := t.TempDir()
	t.Cleanup(func() { must(t, treecheck.Unseal(filepath.Dir(root))) })
	must(t, treecheck.Generate(root, seed, o))
	m, err := treecheck.NewMutator(root, seed, o)
	must(t, err)
	t.Cleanup(func() { m.Close() })
	return &gardener{t: t, root: root, Mutator: m}
}

// mutate makes n changes.
func (g *gardener) mutate(n int) {
	g.t.Helper()
	for range n {
		what, err := g.Change()
		must(g.t, err)
		g.log = append(g.log, what)
	}
}
