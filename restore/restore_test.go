package restore_test

import (
	"strings"
	"testing"

	"github.com/vzkit/vzkit/internal/criu"
	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/restore"
)

// Images that are no container's must give CRIU's own reason.
func TestRestoreFails(t *testing.T) {
	path, err := criu.Find()
	if err != nil {
		t.Fatal(err)
	}
	s := newStore(t, 1<<20)
	if err := s.Image("inventory.img", []byte("not an inventory"), true); err != nil {
		t.Fatal(err)
	}
	never := func() error { t.Error("called for images that cannot be restored"); return nil }
	pid, err := restore.Restore(restore.Config{
		Criu: path, Dir: s.Dir(), Root: t.TempDir(), Freeze: never, Connect: func(int) error { return never() },
	})
	if pid != 0 || fault.KindOf(err) != fault.Restore || !strings.Contains(err.Error(), "inventory") {
		t.Errorf("restored process %d, error %v of kind %d", pid, err, fault.KindOf(err))
	}
}
