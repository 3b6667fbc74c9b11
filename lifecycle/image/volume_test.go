package image

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/vzkit/vzkit/internal/fault"
)

func TestInUse(t *testing.T) {
	i := newImage(t, 64*mebi)
	_, err := i.InUse()
	wantFault(t, "idle", err, fault.ImageMount, "not in use")
	attach(t, i)
	v, err := i.InUse()
	must(t, err)
	defer v.File.Close()
	if got := LabelOf(int(v.Minor)); v.Major != LoopMajor || got != i.Label {
		t.Errorf("device %d:%d has label %q", v.Major, v.Minor, got)
	}
	info, err := v.File.Stat()
	must(t, err)
	if info.Size() != 64*mebi {
		t.Errorf("%d bytes", info.Size())
	}
	if _, err := v.File.WriteAt(make([]byte, 4096), 0); err == nil {
		t.Error("it can be written")
	}
}

func TestClaim(t *testing.T) {
	i := newImage(t, 64*mebi)
	v, err := i.Claim(t.Context())
	must(t, err)
	if v.Major != 0 {
		t.Errorf("device %d:%d", v.Major, v.Minor)
	}
	atOnce, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = i.Attach(atOnce)
	wantFault(t, "claimed", err, fault.ImageMount, "in use elsewhere")
	must(t, v.File.Close())
	attach(t, i)
	_, err = i.Claim(atOnce)
	wantFault(t, "mounted", err, fault.ImageMount, "in use elsewhere")
}

// A copy that was made after a sync is mounted without e2fsck, and has all that
// there was then.
func TestUnchecked(t *testing.T) {
	i := newImage(t, 64*mebi)
	dir := attach(t, i)
	must(t, os.WriteFile(filepath.Join(dir, "file"), []byte("here"), 0o600))
	d, err := os.Open(dir)
	must(t, err)
	must(t, unix.Syncfs(int(d.Fd())))
	must(t, d.Close())
	text, err := os.ReadFile(i.Path())
	must(t, err)
	other := Image{Dir: t.TempDir(), Label: "other " + i.Label, Unchecked: true}
	must(t, os.WriteFile(other.Path(), text, 0o600))
	must(t, Image{Dir: "/none", Unchecked: true}.check(t.Context(), nil))
	if (Image{Dir: "/none"}).check(t.Context(), nil) == nil {
		t.Error("e2fsck does not run")
	}
	at := attach(t, other)
	defer other.Detach()
	if got, err := os.ReadFile(filepath.Join(at, "file")); err != nil || string(got) != "here" {
		t.Errorf("%q, %v", got, err)
	}
}

// Whatever an image would have the kernel do after an error, it becomes
// read-only and no more.
func TestErrorsDoNotPanic(t *testing.T) {
	i := newImage(t, 64*mebi)
	if out, err := exec.Command("tune2fs", "-e", "panic", i.Path()).CombinedOutput(); err != nil {
		t.Fatal(err, string(out))
	}
	dir := attach(t, i)
	mounts, err := mountinfo.GetMounts(mountinfo.SingleEntryFilter(dir))
	must(t, err)
	if len(mounts) != 1 || !strings.Contains(mounts[0].VFSOptions, "errors=remount-ro") {
		t.Errorf("mounted with %+v", mounts)
	}
}

// An emptied journal has nothing to replay.
func TestSettle(t *testing.T) {
	i := newImage(t, 64*mebi)
	dir, err := os.Open(attach(t, i))
	must(t, err)
	defer dir.Close()
	start := func(empty bool) string {
		t.Helper()
		for n := range 50 {
			must(t, os.WriteFile(filepath.Join(dir.Name(), fmt.Sprint(n, empty)), nil, 0o600))
		}
		must(t, Settle(dir, empty))
		out, err := exec.Command("dumpe2fs", "-h", i.Path()).CombinedOutput()
		must(t, err)
		_, start, _ := strings.Cut(string(out), "Journal start:")
		start, _, _ = strings.Cut(start, "\n")
		return strings.TrimSpace(start)
	}
	if got := start(false); got == "0" || got == "" {
		t.Errorf("synced: journal starts at %q", got)
	}
	if got := start(true); got != "0" {
		t.Errorf("emptied: journal starts at %q", got)
	}
}
