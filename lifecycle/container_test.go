package lifecycle_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/lifecycle"
	"github.com/vzkit/vzkit/lifecycle/config"
)

// unusual is an id that no container of a machine can have.
var unusual = 3_000_000_000 + uint32(os.Getpid())

func TestInit(t *testing.T) {
	h := newHost(t)
	c := bare(t, h, 101, "")
	if got := c.Init(); got != 0 {
		t.Errorf("init of a new container is %d", got)
	}
	pid, end := sleeper(t)
	if err := c.SetInit(pid); err != nil {
		t.Fatal(err)
	}
	if s, err := c.Status(); err != nil || s != (lifecycle.Status{Running: true, Init: pid}) {
		t.Errorf("status %+v, %v, want init %d", s, err, pid)
	}
	end()
	if s, err := c.Status(); err != nil || s != (lifecycle.Status{}) {
		t.Errorf("status after its end %+v, %v", s, err)
	}
	if err := c.SetInit(pid); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("record a process that is gone: %v", err)
	}
	if err := errors.Join(c.ForgetInit(), c.ForgetInit()); err != nil {
		t.Error(err)
	}
	if got := files(t, h); len(got) != 2 { // vz.conf, 101.conf
		t.Errorf("left: %q", got)
	}
}

// A pid that another process has now is not the container's init.
func TestInitIsNotAnotherProcess(t *testing.T) {
	h := newHost(t)
	c := bare(t, h, 101, "")
	pid, _ := sleeper(t)
	if err := c.SetInit(pid); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(h.Run, "101.json")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, other := range []string{
		strings.Replace(string(text), `"start":`, `"start":1`, 1), "", "{}", "null", "[]", `{"init":-1}`, `{"init":1,"start":1}`, "\x00",
	} {
		put(t, path, other)
		if got := c.Init(); got != 0 {
			t.Errorf("%q: init is %d", other, got)
		}
	}
	put(t, path, string(text))
	if got := c.Init(); got != pid {
		t.Errorf("init is %d, want %d", got, pid)
	}
}

func TestHandover(t *testing.T) {
	h := newHost(t)
	c := minimal(t, h, 101, lifecycle.CreateOptions{})
	if got, err := c.Handover(); got != nil || err != nil {
		t.Errorf("record of a new container: %+v, %v", got, err)
	}
	if err := c.CheckOwned(); err != nil {
		t.Error(err)
	}
	want := lifecycle.Handover{ID: "4a2f7d1e-0000-4000-8000-000000000000", To: "root@beta", Live: true, At: time.Now().Truncate(time.Second)}
	if err := c.HandOver(want); err != nil {
		t.Fatal(err)
	}
	got, err := c.Handover()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(&want, got); diff != "" {
		t.Error(diff)
	}
	err = c.CheckOwned()
	wantFault(t, "check", err, fault.Undelivered, "container 101 is handed to root@beta since ")
	if hint := fault.HintOf(err); hint != "vzmigrate root@beta 101 delivers the handover." {
		t.Errorf("hint %q", hint)
	}
	wantFault(t, "start", c.Start(), fault.Undelivered, "handed to root@beta")
	_, err = c.Command(t.Context(), []string{"true"})
	wantFault(t, "command", err, fault.Undelivered, "handed to root@beta")
	if err := errors.Join(c.Delivered(), c.Delivered(), c.CheckOwned()); err != nil {
		t.Error(err)
	}
}

// A record that cannot be read must not give the container back to this host.
func TestHandoverIsDamaged(t *testing.T) {
	h := newHost(t)
	c := minimal(t, h, 101, lifecycle.CreateOptions{})
	path := filepath.Join(h.Lib, "handover", "101.json")
	for _, text := range []string{"", "{", "\x00\x00\x00\x00", `"x"`} {
		put(t, path, text)
		if got, err := c.Handover(); got != nil || err == nil {
			t.Errorf("%q: record %+v, %v", text, got, err)
		}
		if c.CheckOwned() == nil || c.Start() == nil || c.Destroy() == nil {
			t.Errorf("%q: this host owns the container", text)
		}
	}
}

func TestStartRefusals(t *testing.T) {
	h := newHost(t)
	c := bare(t, h, 101, "")
	wantFault(t, "no private area", c.Start(), fault.NoContainer, "no private area")
	put(t, filepath.Join(c.Private(), "etc/hostname"), "x\n")
	wantFault(t, "no init", c.Start(), fault.NoTemplate, "has no /sbin/init")
	put(t, filepath.Join(c.Private(), "sbin/init"), "")
	bare(t, h, 102, "NAME=web\nIP_ADDRESS=10.255.255.2\n")
	for conf, want := range map[string]struct {
		kind fault.Kind
		text string
	}{
		"DISABLED=yes\n":                  {fault.Disabled, "container 101 is disabled"},
		"NAME=web\n":                      {fault.Exists, "container 102's"},
		"IP_ADDRESS=\"10.255.255.2/8\"\n": {fault.AddressUsed, "container 102's"},
	} {
		wantFault(t, conf, bare(t, h, 101, conf).Start(), want.kind, want.text)
	}
	pid, _ := sleeper(t)
	if err := c.SetInit(pid); err != nil {
		t.Fatal(err)
	}
	wantFault(t, "running", c.Start(), fault.Running, "container 101 is running already")
	for _, dir := range []string{c.Root(), filepath.Join(h.Lib, "root")} {
		if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is there: %v", dir, err)
		}
	}
}

func TestExecInStoppedContainer(t *testing.T) {
	c := bare(t, newHost(t), 101, "")
	_, err := c.Exec(t.Context(), []string{"true"}, nil, nil, nil)
	wantFault(t, "exec", err, fault.NotRunning, "container 101 is not running")
}

func TestMountAndUmount(t *testing.T) {
	h := newHost(t)
	c := minimal(t, h, 101, lifecycle.CreateOptions{})
	wantFault(t, "umount first", c.Umount(), fault.NotMounted, "is not mounted")
	if err := c.Mount(); err != nil {
		t.Fatal(err)
	}
	if s, err := c.Status(); err != nil || s != (lifecycle.Status{Exists: true, Mounted: true}) {
		t.Errorf("status %+v, %v", s, err)
	}
	if _, err := os.Lstat(filepath.Join(c.Root(), "sbin/init")); err != nil {
		t.Error(err)
	}
	wantFault(t, "mount twice", c.Mount(), fault.Mounted, "mounted already")
	pid, end := sleeper(t)
	if err := c.SetInit(pid); err != nil {
		t.Fatal(err)
	}
	wantFault(t, "umount a running container", c.Umount(), fault.Running, "is running")
	end()
	if err := c.Umount(); err != nil {
		t.Fatal(err)
	}
	wantUnmounted(t, c)
	if err := os.RemoveAll(c.Private()); err != nil {
		t.Fatal(err)
	}
	wantFault(t, "mount nothing", c.Mount(), fault.Mount, "mount")
	wantUnmounted(t, c)
}

func wantUnmounted(t *testing.T, c *lifecycle.Container) {
	t.Helper()
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(c.Root()))
	if err != nil || len(mounts) > 0 {
		t.Errorf("mounts %+v, %v", mounts, err)
	}
}

// What Prepare makes, Close and Dismantle take away.
func TestShell(t *testing.T) {
	h := newHost(t)
	f := &config.File{}
	if err := f.Set("VE_PRIVATE", t.TempDir()); err != nil {
		t.Fatal(err)
	}
	c, err := h.With(unusual, f)
	if err != nil {
		t.Fatal(err)
	}
	g, err := c.Cgroup()
	if err != nil {
		t.Fatal(err)
	}
	freezer, _, err := g.Freezer()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Dismantle(); err != nil {
			t.Error(err)
		}
	})
	gone := func(what string) {
		t.Helper()
		wantUnmounted(t, c)
		for _, path := range []string{freezer, c.Root()} {
			if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("after %s there is %s: %v", what, path, err)
			}
		}
		if c.Init() != 0 {
			t.Errorf("after %s it runs", what)
		}
	}
	for what, end := range map[string]func(*lifecycle.Shell) error{
		"close":     (*lifecycle.Shell).Close,
		"dismantle": func(s *lifecycle.Shell) error { s.Keep(); return errors.Join(s.Close(), c.Dismantle(), c.Dismantle()) },
	} {
		shell, err := c.Prepare(c.Private())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := os.Lstat(freezer); err != nil {
			t.Error(err)
		}
		pid, _ := sleeper(t)
		if err := shell.Started(pid); err != nil {
			t.Error(err)
		}
		if s, err := c.Status(); err != nil || s != (lifecycle.Status{Exists: true, Mounted: true, Running: true, Init: pid}) {
			t.Errorf("status %+v, %v", s, err)
		}
		if err := end(shell); err != nil {
			t.Error(err)
		}
		gone(what)
	}
	if _, err := c.Prepare(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("prepared without a private area")
	}
	gone("a failure")
}

// A container whose root is where something else is mounted must not take
// that down.
func TestDismantleSparesForeignMount(t *testing.T) {
	h := newHost(t)
	dir := t.TempDir()
	if err := unix.Mount("foreign", dir, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	f := &config.File{}
	if err := errors.Join(f.Set("VE_ROOT", dir), f.Set("VE_PRIVATE", t.TempDir())); err != nil {
		t.Fatal(err)
	}
	c, err := h.With(unusual, f)
	if err != nil {
		return // refused from the start
	}
	for what, do := range map[string]func() error{
		"dismantle": c.Dismantle, "umount": c.Umount, "stop": func() error { return c.Stop(t.Context(), true) },
		"start": c.Start, "mount": c.Mount, "destroy": c.Destroy,
	} {
		_ = do()
		if mounted, err := mountinfo.Mounted(dir); err != nil || !mounted {
			t.Fatalf("%s took away what is mounted at the root: %v", what, err)
		}
	}
}
