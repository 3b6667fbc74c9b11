package migrate

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/vzkit/vzkit/lifecycle"
)

// What is kept is found as long as that very directory is there.
func TestKept(t *testing.T) {
	h, dir := &lifecycle.Host{Lib: t.TempDir()}, filepath.Join(t.TempDir(), "area")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := keep(h, 101, keptGone, dir, lifecycle.LayoutImage); err != nil {
		t.Fatal(err)
	}
	if k := findKept(h, 101, keptGone); k == nil || k.Path != dir || k.Layout != lifecycle.LayoutImage {
		t.Errorf("found %+v", k)
	}
	if k := findKept(h, 101, keptPartial); k != nil {
		t.Errorf("found %+v", k)
	}
	if err := os.Rename(dir, dir+".old"); err != nil {
		t.Fatal(err)
	}
	for _, other := range []func() error{
		func() error { return nil }, func() error { return os.Mkdir(dir, 0o700) },
		func() error { return os.Remove(dir) }, func() error { return os.Symlink(dir+".old", dir) },
	} {
		if err := other(); err != nil {
			t.Fatal(err)
		}
		if k := findKept(h, 101, keptGone); k != nil {
			t.Errorf("found %+v in its place", k)
		}
	}
	for range 2 {
		if err := forget(h, 101, keptGone); err != nil {
			t.Error(err)
		}
	}
	if err := keep(h, 101, keptGone, dir, lifecycle.LayoutDir); err == nil {
		t.Error("a link is kept")
	}
}
