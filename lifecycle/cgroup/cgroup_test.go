package cgroup_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vzkit/vzkit/freeze"
	"github.com/vzkit/vzkit/lifecycle/cgroup"
)

// Container ids that nothing else on a machine has: they are not even valid,
// and differ where two of these tests run at a time.
var (
	firstID  = 3_000_000_000 + 2*uint32(os.Getpid())
	secondID = firstID + 1
)

// open returns the group of container ctid; it is gone after the test.
func open(t *testing.T, ctid uint32) *cgroup.Group {
	t.Helper()
	g, err := cgroup.Open(ctid)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(g.Kill(), g.Remove()); err != nil {
			t.Error(err)
		}
		wantNone(t, g)
	})
	return g
}

func create(t *testing.T, ctid uint32) *cgroup.Group {
	t.Helper()
	g := open(t, ctid)
	if err := g.Create(); err != nil {
		t.Fatal(err)
	}
	return g
}

// sleeper is a process that ends with the test, and a channel that is closed
// when it has ended.
func sleeper(t *testing.T) (pid int, ended <-chan struct{}) {
	t.Helper()
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(done)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-done
	})
	return cmd.Process.Pid, done
}

// dirs are the group's directories, worked out independently.
func dirs(t *testing.T, g *cgroup.Group) (paths []string) {
	t.Helper()
	hs, err := cgroup.Hierarchies()
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range hs {
		paths = append(paths, filepath.Join(h.Mount, g.Path()))
	}
	return paths
}

func wantNone(t *testing.T, g *cgroup.Group) {
	t.Helper()
	for _, dir := range dirs(t, g) {
		if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is left: %v", dir, err)
		}
	}
}

func wantProcs(t *testing.T, g *cgroup.Group, want ...int) {
	t.Helper()
	got, err := g.Procs()
	slices.Sort(got)
	slices.Sort(want)
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("processes %v, %v, want %v", got, err, want)
	}
}

func TestHierarchies(t *testing.T) {
	hs, err := cgroup.Hierarchies()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	var names []string
	for i, h := range hs {
		if h.Unified != (h.Name == "") || h.Unified && i != len(hs)-1 {
			t.Errorf("hierarchy %d of %d: %+v", i, len(hs), h)
		}
		if _, err := os.Stat(filepath.Join(h.Mount, "cgroup.procs")); err != nil {
			t.Errorf("%+v: %v", h, err)
		}
		if slices.Contains(names, h.Name) {
			t.Errorf("%+v is listed twice", h)
		}
		names = append(names, h.Name)
		// proc(5): hierarchy-ID:controller-list:cgroup-path
		known := func(l string) bool { return strings.Split(l, ":")[1] == h.Name }
		if !slices.ContainsFunc(lines, known) {
			t.Errorf("%+v is not in /proc/self/cgroup:\n%s", h, text)
		}
	}
}

func TestLife(t *testing.T) {
	g := create(t, firstID)
	if want := fmt.Sprintf("/vz/%d", firstID); g.Path() != want {
		t.Errorf("path %q, want %q", g.Path(), want)
	}
	if err := g.Create(); err != nil {
		t.Errorf("create again: %v", err)
	}
	wantProcs(t, g)
	pid, ended := sleeper(t)
	if err := g.Join(pid); err != nil {
		t.Fatal(err)
	}
	wantProcs(t, g, pid)
	for _, dir := range dirs(t, g) {
		text, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		if err != nil || strings.TrimSpace(string(text)) != strconv.Itoa(pid) {
			t.Errorf("%s has %q, %v", dir, text, err)
		}
	}
	if err := g.Kill(); err != nil {
		t.Error(err)
	}
	<-ended
	wantProcs(t, g)
	for range 2 {
		if err := g.Remove(); err != nil {
			t.Error(err)
		}
	}
	wantNone(t, g)
	wantProcs(t, g)
	if err := g.Kill(); err != nil {
		t.Errorf("kill a group that is gone: %v", err)
	}
}

func TestRemoveWaitsForNoLivingTask(t *testing.T) {
	g := create(t, firstID)
	pid, _ := sleeper(t)
	if err := g.Join(pid); err != nil {
		t.Fatal(err)
	}
	if err := g.Remove(); err == nil {
		t.Error("a group with a process was removed")
	}
	wantProcs(t, g, pid)
}

func TestJoinFails(t *testing.T) {
	g := open(t, firstID)
	if err := g.Join(os.Getpid()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("join a group that does not exist: %v", err)
	}
	if err := g.Create(); err != nil {
		t.Fatal(err)
	}
	if err := g.Join(1 << 22); err == nil {
		t.Error("a process that does not exist joined")
	}
}

// An init inside a container makes groups of its own.
func TestNested(t *testing.T) {
	g := create(t, firstID)
	outer, _ := sleeper(t)
	inner, _ := sleeper(t)
	if err := g.Join(outer); err != nil {
		t.Fatal(err)
	}
	for _, dir := range dirs(t, g) {
		if err := os.MkdirAll(filepath.Join(dir, "a", "b"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	freezer, _, err := g.Freezer()
	if err != nil {
		t.Fatal(err)
	}
	procs := filepath.Join(freezer, "a", "b", "cgroup.procs")
	if err := os.WriteFile(procs, []byte(strconv.Itoa(inner)), 0); err != nil {
		t.Fatal(err)
	}
	wantProcs(t, g, outer, inner)
	if err := errors.Join(g.Kill(), g.Remove()); err != nil {
		t.Error(err)
	}
	wantNone(t, g)
}

func TestKillFrozen(t *testing.T) {
	g := create(t, firstID)
	pid, ended := sleeper(t)
	if err := g.Join(pid); err != nil {
		t.Fatal(err)
	}
	dir, unified, err := g.Freezer()
	if err != nil {
		t.Fatal(err)
	}
	f := freeze.Freezer{Dir: dir, Unified: unified}
	if err := f.Freeze(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := g.Kill(); err != nil {
		t.Error(err)
	}
	<-ended
}

func TestChown(t *testing.T) {
	g := create(t, firstID)
	const id = 123456
	if err := g.Chown(id, id); err != nil {
		t.Fatal(err)
	}
	for _, dir := range dirs(t, g) {
		unified := filepath.Join(dir, "cgroup.subtree_control")
		_, err := os.Stat(unified)
		want := "0:0"
		if err == nil {
			want = "123456:123456"
		}
		out, err := exec.Command("stat", "--format", "%u:%g", dir, filepath.Join(dir, "cgroup.procs")).Output()
		if got := strings.Fields(string(out)); err != nil || !slices.Equal(got, []string{want, want}) {
			t.Errorf("%s belongs to %v, %v, want %s", dir, got, err, want)
		}
	}
}

// One container comes while the last other one goes.
func TestCreateWhileOtherIsRemoved(t *testing.T) {
	comes, goes := open(t, firstID), open(t, secondID)
	stop, stopped := make(chan struct{}), make(chan error)
	go func() {
		for {
			select {
			case <-stop:
				stopped <- nil
				return
			default:
			}
			if err := errors.Join(goes.Create(), goes.Remove()); err != nil {
				stopped <- err
				return
			}
		}
	}()
	var failed error
	for end := time.Now().Add(time.Second / 2); time.Now().Before(end) && failed == nil; {
		failed = errors.Join(comes.Create(), filledCpuset(dirs(t, comes)), comes.Remove())
	}
	close(stop)
	if err := errors.Join(failed, <-stopped); err != nil {
		t.Error(err)
	}
}

// filledCpuset checks that tasks could join: a v1 cpuset has a processor.
func filledCpuset(dirs []string) error {
	for _, dir := range dirs {
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
			value, err := os.ReadFile(filepath.Join(dir, file))
			if err == nil && len(strings.TrimSpace(string(value))) == 0 && strings.Contains(dir, "/cpuset") {
				return fmt.Errorf("%s of %q is empty", file, dir)
			}
		}
	}
	return nil
}
