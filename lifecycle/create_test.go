package lifecycle_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/lifecycle"
)

func TestCreate(t *testing.T) {
	h := newHost(t)
	minimal(t, h, 101, lifecycle.CreateOptions{
		IPs: []string{"10.0.0.2/24", "fd00::2"}, Hostname: "web.example", Name: "web", UID: "200000", GID: "300000",
	})
	text, err := os.ReadFile(h.ConfPath(101))
	if err != nil {
		t.Fatal(err)
	}
	want := `ONBOOT="no"
OSTEMPLATE="minimal"
IP_ADDRESS="10.0.0.2/24 fd00::2"
HOSTNAME="web.example"
NAME="web"
LOCAL_UID="200000"
LOCAL_GID="300000"
VE_LAYOUT="dir"
`
	if diff := cmp.Diff(want, string(text)); diff != "" {
		t.Error(diff)
	}
	c, err := h.Find("web")
	if err != nil {
		t.Fatal(err)
	}
	if s, err := c.Status(); err != nil || s != (lifecycle.Status{Exists: true}) {
		t.Errorf("status %+v, %v", s, err)
	}
	if left, err := os.ReadDir(filepath.Dir(c.Private())); err != nil || len(left) != 1 {
		t.Errorf("beside the private area: %v, %v", left, err)
	}
	if name, err := os.ReadFile(filepath.Join(c.Private(), "etc/hostname")); err != nil || string(name) != "web.example\n" {
		t.Errorf("host name inside is %q, %v", name, err)
	}
	err = filepath.WalkDir(c.Private(), func(path string, _ fs.DirEntry, err error) error {
		if uid, gid := ownerOf(t, path); uid != 200000 || gid < 300000 || gid > 300005 {
			t.Errorf("%s belongs to %d:%d", path, uid, gid)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func TestCreateDevices(t *testing.T) {
	old := unix.Umask(0o077) // which must not show in the modes
	defer unix.Umask(old)
	c := minimal(t, newHost(t), 101, lifecycle.CreateOptions{})
	dev := filepath.Join(c.Private(), "dev")
	for name, want := range map[string]struct{ major, minor, mode uint32 }{
		"null": {1, 3, 0o666}, "zero": {1, 5, 0o666}, "full": {1, 7, 0o666}, "random": {1, 8, 0o666},
		"urandom": {1, 9, 0o666}, "tty": {5, 0, 0o666}, "console": {1, 3, 0o600},
	} {
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(dev, name), &st); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if st.Mode != unix.S_IFCHR|want.mode || st.Rdev != unix.Mkdev(want.major, want.minor) ||
			st.Uid != lifecycle.DefaultUID || st.Gid != lifecycle.DefaultUID {
			t.Errorf("%s has mode %o, number %d:%d, owner %d:%d", name, st.Mode, unix.Major(st.Rdev), unix.Minor(st.Rdev), st.Uid, st.Gid)
		}
	}
	for name, want := range map[string]string{
		"ptmx": "pts/ptmx", "fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2",
	} {
		if got, err := os.Readlink(filepath.Join(dev, name)); got != want {
			t.Errorf("%s leads to %q, %v, want %q", name, got, err, want)
		}
	}
	for _, name := range []string{"pts", "shm"} {
		if info, err := os.Lstat(filepath.Join(dev, name)); err != nil || !info.IsDir() {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCreateRefusals(t *testing.T) {
	h := newHost(t)
	minimal(t, h, 101, lifecycle.CreateOptions{Name: "web", IPs: []string{"10.0.0.2"}})
	orphan := filepath.Join(h.Lib, "private", "103")
	put(t, filepath.Join(orphan, "file"), "")
	before := files(t, h)
	const m = "minimal"
	for name, c := range map[string]struct {
		ctid uint32
		o    lifecycle.CreateOptions
		kind fault.Kind
		want string
	}{
		"container is there":   {101, lifecycle.CreateOptions{Template: m}, fault.Exists, "container 101 exists"},
		"private area is":      {103, lifecycle.CreateOptions{Template: m}, fault.Exists, orphan},
		"name is taken":        {102, lifecycle.CreateOptions{Template: m, Name: "web"}, fault.Exists, "container 101's"},
		"address is taken":     {102, lifecycle.CreateOptions{Template: m, IPs: []string{"10.0.0.2/8"}}, fault.AddressUsed, "10.0.0.2"},
		"no template":          {102, lifecycle.CreateOptions{}, fault.NoTemplate, "no OS template"},
		"unknown template":     {102, lifecycle.CreateOptions{Template: "slackware"}, fault.NoTemplate, "slackware"},
		"template is a path":   {102, lifecycle.CreateOptions{Template: "../minimal"}, fault.BadValue, "../minimal"},
		"bad address":          {102, lifecycle.CreateOptions{Template: m, IPs: []string{"10.0.0"}}, fault.BadValue, "10.0.0"},
		"address twice":        {102, lifecycle.CreateOptions{Template: m, IPs: []string{"10.0.0.3", "10.0.0.3"}}, fault.BadValue, "10.0.0.3"},
		"bad host name":        {102, lifecycle.CreateOptions{Template: m, Hostname: "a b"}, fault.BadValue, "a b"},
		"host name too long":   {102, lifecycle.CreateOptions{Template: m, Hostname: strings.Repeat("a", 65)}, fault.BadValue, "host name"},
		"host name with dash":  {102, lifecycle.CreateOptions{Template: m, Hostname: "-x"}, fault.BadValue, "-x"},
		"name like a CTID":     {102, lifecycle.CreateOptions{Template: m, Name: "7"}, fault.BadValue, `"7"`},
		"name with line end":   {102, lifecycle.CreateOptions{Template: m, Name: "x\n"}, fault.BadValue, "container name"},
		"private is relative":  {102, lifecycle.CreateOptions{Template: m, Private: "private/102"}, fault.Config, "private/102"},
		"root is the host's":   {102, lifecycle.CreateOptions{Template: m, Root: "/"}, fault.Config, `"/"`},
		"private has a quote":  {102, lifecycle.CreateOptions{Template: m, Private: `/vz/"`}, fault.BadValue, "VE_PRIVATE"},
		"ids of the host":      {102, lifecycle.CreateOptions{Template: m, UID: "0"}, fault.BadValue, "LOCAL_UID"},
		"ids beyond the range": {102, lifecycle.CreateOptions{Template: m, GID: "4294967295"}, fault.BadValue, "LOCAL_GID"},
	} {
		_, err := h.Create(t.Context(), c.ctid, c.o)
		wantFault(t, name, err, c.kind, c.want)
		if diff := cmp.Diff(before, files(t, h)); diff != "" {
			t.Fatalf("%s left: %s", name, diff)
		}
	}
}

// Nothing may be left of a container that could not be completed.
func TestCreateFails(t *testing.T) {
	h := newHost(t)
	minimal(t, h, 101, lifecycle.CreateOptions{})
	before := files(t, h)
	if _, err := h.Create(cancelled(), 102, lifecycle.CreateOptions{Template: "minimal"}); err == nil {
		t.Error("created after the end of the context")
	}
	wantSame := func(what string) {
		t.Helper()
		left, err := os.ReadDir(filepath.Join(h.Lib, "private"))
		if err != nil || len(left) != 1 {
			t.Errorf("%s: private areas %v, %v", what, left, err)
		}
		if diff := cmp.Diff(before, files(t, h)); diff != "" {
			t.Errorf("%s left: %s", what, diff)
		}
	}
	wantSame("context")
	conf := filepath.Dir(h.ConfPath(102))
	if err := unix.Mount(conf, conf, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	mounted := true
	unmount := func() {
		if mounted {
			mounted = false
			if err := unix.Unmount(conf, unix.MNT_DETACH); err != nil {
				t.Error(err)
			}
		}
	}
	t.Cleanup(unmount)
	if err := unix.Mount("", conf, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	_, err := h.Create(t.Context(), 102, lifecycle.CreateOptions{Template: "minimal"})
	wantFault(t, "config directory is read-only", err, fault.Config, "save config")
	unmount()
	wantSame("read-only config directory")
	minimal(t, h, 102, lifecycle.CreateOptions{}) // all is well again
}

func TestCreateAtOwnPlaces(t *testing.T) {
	h := newHost(t)
	dir := t.TempDir()
	put(t, filepath.Join(h.Etc, "vz.conf"), fmt.Sprintf("TEMPLATE=%q\nDEF_OSTEMPLATE=minimal\n", templates))
	c, err := h.Create(t.Context(), 101, lifecycle.CreateOptions{Private: dir + "/p/$VEID", Root: dir + "/r/${VEID}"})
	if err != nil {
		t.Fatal(err)
	}
	if c.Private() != dir+"/p/101" || c.Root() != dir+"/r/101" || c.Template() != "minimal" {
		t.Errorf("private %q, root %q, template %q", c.Private(), c.Root(), c.Template())
	}
	if _, err := os.Lstat(filepath.Join(dir, "p/101/sbin/init")); err != nil {
		t.Error(err)
	}
}

func TestDestroy(t *testing.T) {
	h := newHost(t)
	for range 2 {
		c := minimal(t, h, 101, lifecycle.CreateOptions{})
		text, err := os.ReadFile(h.ConfPath(101))
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Destroy(); err != nil {
			t.Fatal(err)
		}
		kept, err := os.ReadFile(h.ConfPath(101) + ".destroyed")
		if err != nil || string(kept) != string(text) {
			t.Errorf("kept config %q, %v", kept, err)
		}
		if left, err := os.ReadDir(filepath.Dir(c.Private())); err != nil || len(left) != 0 {
			t.Errorf("private areas %v, %v", left, err)
		}
		_, err = h.Find("101")
		wantFault(t, "find", err, fault.NoContainer, "container 101 does not exist")
		wantFault(t, "destroy again", c.Destroy(), fault.Config, "rename config")
	}
}

func TestDestroyRefusals(t *testing.T) {
	h := newHost(t)
	c := minimal(t, h, 101, lifecycle.CreateOptions{})
	if err := c.Mount(); err != nil {
		t.Fatal(err)
	}
	wantFault(t, "destroy a mounted container", c.Destroy(), fault.Mounted, "container 101 is mounted")
	if err := c.Umount(); err != nil {
		t.Fatal(err)
	}
	pid, end := sleeper(t)
	if err := c.SetInit(pid); err != nil {
		t.Fatal(err)
	}
	wantFault(t, "destroy a running container", c.Destroy(), fault.Running, "container 101 is running")
	end()
	if err := c.HandOver(lifecycle.Handover{ID: "x", To: "beta"}); err != nil {
		t.Fatal(err)
	}
	wantFault(t, "destroy a container handed over", c.Destroy(), fault.Undelivered, "handed to beta")
	if _, err := os.Lstat(filepath.Join(c.Private(), "sbin/init")); err != nil {
		t.Errorf("after the refusals: %v", err)
	}
	if err := errors.Join(c.Delivered(), c.Destroy()); err != nil {
		t.Error(err)
	}
}
