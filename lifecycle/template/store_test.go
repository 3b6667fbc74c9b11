package template

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vzkit/vzkit/internal/fault"
)

// minimalStore returns a store with the template minimal in it.
func minimalStore(t *testing.T) (Store, Info) {
	t.Helper()
	s := Store{Dir: filepath.Join(t.TempDir(), "template")}
	info, err := s.Ensure(context.Background(), Minimal)
	if err != nil {
		t.Fatal(err)
	}
	return s, info
}

func TestStore(t *testing.T) {
	s, built := minimalStore(t)
	if built.Name != Minimal || built.Distribution != "busybox" || built.Entries < 100 || built.Unpacked < 1<<20 || len(built.SHA256) != 64 {
		t.Errorf("info %+v", built)
	}
	got, err := s.Lookup(Minimal)
	if err != nil || got.SHA256 != built.SHA256 || !got.Built.Equal(built.Built) {
		t.Errorf("Lookup: %+v, %v", got, err)
	}
	var steps []string
	_, err = s.Build(context.Background(), BuildOptions{Name: Minimal, As: "another-1.0", Progress: func(s string) { steps = append(steps, s) }})
	if err != nil || len(steps) != 2 {
		t.Errorf("Build: %v, steps %q", err, steps)
	}
	put(t, filepath.Join(s.cache(), "orphan.tar.zst"), "")
	all, err := s.List()
	if err != nil || len(all) != 2 || all[0].Name != "another-1.0" || all[1].Name != Minimal {
		t.Errorf("List: %+v, %v", all, err)
	}
	if err := s.Remove("another-1.0"); err != nil {
		t.Error(err)
	}
	if err := s.Remove("another-1.0"); fault.KindOf(err) != fault.NoTemplate {
		t.Errorf("second Remove: %v", err)
	}
	if _, err := s.Lookup("another-1.0"); fault.KindOf(err) != fault.NoTemplate {
		t.Errorf("Lookup after Remove: %v", err)
	}
	if again, err := s.Ensure(context.Background(), Minimal); err != nil || !again.Built.Equal(built.Built) {
		t.Errorf("Ensure built it again: %v", err)
	}
}

func TestUnknown(t *testing.T) {
	s := Store{Dir: filepath.Join(t.TempDir(), "none")}
	if all, err := s.List(); all != nil || err != nil {
		t.Errorf("List: %v, %v", all, err)
	}
	_, err := s.Ensure(context.Background(), "debian-12")
	if fault.KindOf(err) != fault.NoTemplate || !strings.Contains(fault.HintOf(err), "vztmpl build debian-12") {
		t.Errorf("%v, hint %q", err, fault.HintOf(err))
	}
	for name, do := range map[string]func() error{
		"remove":  func() error { return s.Remove("debian-12") },
		"extract": func() error { return s.Extract(context.Background(), "centos-7", t.TempDir(), IDShift{}) },
		"build":   func() error { _, err := s.Build(context.Background(), BuildOptions{Name: "centos-7"}); return err },
	} {
		if err := do(); fault.KindOf(err) != fault.NoTemplate || fault.HintOf(err) == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := os.Stat(s.Dir); !errors.Is(err, os.ErrNotExist) {
		t.Error("a refusal made the template directory")
	}
}

func TestBadNames(t *testing.T) {
	s := Store{Dir: t.TempDir()}
	for _, name := range []string{"", ".", "..", "../x", "a/b", "/etc/passwd", ".hidden", "a\x00b", "-j", strings.Repeat("a", 101)} {
		_, lookup := s.Lookup(name)
		_, build := s.Build(context.Background(), BuildOptions{Name: Minimal, As: name + "/"})
		for _, err := range []error{lookup, build, s.Remove(name), s.Extract(context.Background(), name, t.TempDir(), IDShift{})} {
			if fault.KindOf(err) != fault.BadValue {
				t.Errorf("name %q: %v", name, err)
			}
		}
	}
	for _, o := range []BuildOptions{
		{Name: Minimal, Packages: []string{"redis-server"}},
		{Name: "debian-12", Packages: []string{"-o", "x"}},
		{Name: "debian-12", Packages: []string{"./evil.deb"}},
	} {
		if _, err := s.Build(context.Background(), o); fault.KindOf(err) != fault.BadValue {
			t.Errorf("packages %q: %v", o.Packages, err)
		}
	}
}

func TestDamagedMetadata(t *testing.T) {
	s, _ := minimalStore(t)
	tarball, err := s.Path(Minimal)
	if err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(metadata(tarball))
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"empty":      "",
		"not json":   "<html>",
		"no sum":     strings.Replace(string(good), `"sha256": "`, `"sha256": "z`, 1),
		"other name": strings.Replace(string(good), `"minimal"`, `"maximal"`, 1),
		"other size": strings.Replace(string(good), `"size": `, `"size": 1`, 1),
		"entries":    strings.Replace(string(good), `"entries": `, `"entries": -`, 1),
		"unpacked":   strings.Replace(string(good), `"unpacked": `, `"unpacked": -`, 1),
		"too long":   strings.Repeat(" ", maxMetadata) + string(good),
	} {
		put(t, metadata(tarball), text)
		if _, err := s.Lookup(Minimal); fault.KindOf(err) != fault.NoTemplate || !strings.Contains(err.Error(), "damaged") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if all, err := s.List(); len(all) != 0 || fault.KindOf(err) != fault.NoTemplate {
		t.Errorf("List: %v, %v", all, err)
	}
	if _, err := s.Ensure(context.Background(), Minimal); err != nil {
		t.Errorf("Ensure does not repair it: %v", err)
	}
}

func TestCancelledBuildLeavesNothing(t *testing.T) {
	s, before := minimalStore(t)
	if err := os.Mkdir(filepath.Join(s.Dir, "build-killed"), 0o755); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	_, err := s.Build(ctx, BuildOptions{Name: Minimal, Progress: func(string) { cancel() }})
	if fault.KindOf(err) != fault.Interrupted {
		t.Errorf("err = %v", err)
	}
	files, err := os.ReadDir(s.Dir)
	if err != nil || len(files) != 1 || files[0].Name() != "cache" {
		t.Errorf("template dir has %v, %v", files, err)
	}
	if after, err := s.Lookup(Minimal); err != nil || after.SHA256 != before.SHA256 {
		t.Errorf("the old template: %+v, %v", after, err)
	}
}

func TestBuildWaitsForItsTurn(t *testing.T) {
	s, _ := minimalStore(t)
	unlock, err := lock(context.Background(), s.Dir, exclusive)
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := s.Build(ctx, BuildOptions{Name: Minimal}); fault.KindOf(err) != fault.Interrupted {
		t.Errorf("err = %v", err)
	}
}
