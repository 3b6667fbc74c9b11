package files

import (
	"testing"

	"github.com/vzkit/vzkit/internal/treecheck"
)

// carriesFlags says whether inode flags and project identifiers arrive, and
// are in the trees that are moved.
const carriesFlags = true

// snap describes everything beneath a directory that should survive a move.
func snap(t *testing.T, root string) treecheck.Tree {
	t.Helper()
	tree, err := treecheck.Snapshot(root)
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

// compareSnapshots reports all differences but those in some fields.
func compareSnapshots(t *testing.T, want, got treecheck.Tree, except ...string) {
	t.Helper()
	differences := treecheck.Without(treecheck.Compare(want, got), except...)
	if !carriesFlags {
		differences = treecheck.Without(differences, treecheck.Flags, treecheck.Project)
	}
	for _, d := range differences {
		t.Error(d)
	}
}

// compareByRsync lets rsync report every difference.
func compareByRsync(t *testing.T, src, dst string) {
	t.Helper()
	if err := treecheck.CompareByRsync(src, dst); err != nil {
		t.Error(err)
	}
}
