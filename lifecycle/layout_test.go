package lifecycle_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/lifecycle"
	"github.com/vzkit/vzkit/lifecycle/image"
)

func TestParseLayout(t *testing.T) {
	for s, want := range map[string]lifecycle.Layout{
		"dir": lifecycle.LayoutDir, "simfs": lifecycle.LayoutDir, "image": lifecycle.LayoutImage, "ploop": lifecycle.LayoutImage,
		"ploop:expanded": lifecycle.LayoutImage, "ploop:plain": lifecycle.LayoutImage, "ploop:raw": lifecycle.LayoutImage, "PLOOP": lifecycle.LayoutImage,
	} {
		if got, err := lifecycle.ParseLayout(s); got != want || err != nil {
			t.Errorf("%q: %q, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "zfs", "ploop:", "ploop:qcow", "image:raw", "dir "} {
		_, err := lifecycle.ParseLayout(s)
		wantFault(t, s, err, fault.BadValue, fmt.Sprintf("%q", s))
	}
}

func TestParseDiskSpace(t *testing.T) {
	for s, want := range map[string]int64{
		"10G": 10 << 30, "10g": 10 << 30, "40960": 40 << 20, "64m": 64 << 20, "67108864B": 64 << 20, "65536K": 64 << 20,
		"16384P": 64 << 20, "1T": 1 << 40, "1G:2G": 2 << 30, "2097152:2306867": 2306867 << 10,
	} {
		if got, err := lifecycle.ParseDiskSpace(s); got != want || err != nil {
			t.Errorf("%q: %d, %v, want %d", s, got, err, want)
		}
	}
	for s, text := range map[string]string{
		"": "no size", "0": "is not in", "G": "no size", "10Q": "no size", "-1G": "no size", "1.5G": "no size", "10 G": "no size", "unlimited": "no size",
		"99999999999999999999": "no size", "18014398509481984K": "no size", "17T": "is not in", "1M": "is not in", "2G:1G": "above its limit", "1G:": "no size", ":1G": "no size",
	} {
		_, err := lifecycle.ParseDiskSpace(s)
		wantFault(t, s, err, fault.BadValue, text)
	}
}

// withImage creates a container with an image. Nothing of that is in use at the
// end of the test.
func withImage(t *testing.T, h *lifecycle.Host, ctid uint32) *lifecycle.Container {
	t.Helper()
	if _, err := os.Stat("/dev/loop-control"); err != nil {
		t.Skip("this machine has no loop devices:", err)
	}
	c := minimal(t, h, ctid, lifecycle.CreateOptions{Layout: "ploop", Space: "64M"})
	t.Cleanup(func() {
		if s, err := c.Status(); err != nil || s.Mounted {
			t.Errorf("at the end: %+v, %v", s, err)
			_ = unix.Unmount(c.Root(), unix.MNT_DETACH)
		}
		if u := inUse(h); u != "" {
			t.Errorf("in use at the end: %s", u)
		}
	})
	return c
}

// inUse lists the loop devices with files of the host that stay: a device that
// was given back still has its file while any mount namespace has a copy of the
// mount, as that of a program that another test has just begun.
func inUse(h *lifecycle.Host) (list string) {
	for range 100 {
		if list = attached(h); list == "" {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	return list
}

// attached lists the loop devices with files of the host.
func attached(h *lifecycle.Host) string {
	var list []string
	files, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, f := range files {
		if name, _ := os.ReadFile(f); strings.Contains(string(name), h.Lib) {
			list = append(list, string(name))
		}
	}
	return strings.Join(list, " ")
}

func TestCreateImage(t *testing.T) {
	h := newHost(t)
	c := withImage(t, h, 101)
	if text, err := os.ReadFile(h.ConfPath(101)); err != nil || !strings.Contains(string(text), "VE_LAYOUT=\"image\"\nDISKSPACE=\"65536:65536\"\n") {
		t.Errorf("config %q, %v", text, err)
	}
	if names, err := os.ReadDir(c.Private()); err != nil || len(names) != 1 || names[0].Name() != image.File {
		t.Errorf("private area: %v, %v", names, err)
	}
	if err := c.Mount(); err != nil {
		t.Fatal(err)
	}
	wantFault(t, "mount twice", c.Mount(), fault.Mounted, "mounted already")
	wantFault(t, "destroy", c.Destroy(), fault.Mounted, "is mounted")
	if s, err := c.Status(); err != nil || !s.Mounted || !s.Exists {
		t.Errorf("status %+v, %v", s, err)
	}
	if uid, gid := ownerOf(t, filepath.Join(c.Root(), "etc/hostname")); uid != lifecycle.DefaultUID || gid != lifecycle.DefaultUID {
		t.Errorf("its files belong to %d:%d", uid, gid)
	}
	if _, err := os.Stat(filepath.Join(c.Root(), "lost+found")); err == nil {
		t.Error("the file system's own things are to be seen")
	}
	dir, release, err := c.Files(t.Context())
	if err != nil || dir != c.Root() {
		t.Errorf("files of the mounted container are in %q, %v", dir, err)
	}
	if err := errors.Join(release(), c.Umount()); err != nil {
		t.Error(err)
	}
	wantFault(t, "umount twice", c.Umount(), fault.NotMounted, "not mounted")
	if err := c.Destroy(); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(filepath.Dir(c.Private())); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestFilesUnmounted(t *testing.T) {
	c := withImage(t, newHost(t), 101)
	for range 2 { // once with what the first has left
		dir, release, err := c.Files(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := os.Lstat(filepath.Join(dir, "sbin/init")); err != nil {
			t.Error(err)
		}
		defer release()
	}
	if err := c.Mount(); err != nil {
		t.Fatal(err)
	}
	if err := c.Umount(); err != nil {
		t.Fatal(err)
	}
}

func TestLayoutRefusals(t *testing.T) {
	h := newHost(t)
	for name, c := range map[string]struct {
		o    lifecycle.CreateOptions
		want string
	}{
		"unknown layout": {lifecycle.CreateOptions{Layout: "zfs"}, `"zfs"`},
		"size of a dir":  {lifecycle.CreateOptions{Layout: "dir", Space: "1G"}, "has no size"},
		"size is none":   {lifecycle.CreateOptions{Layout: "image", Space: "0"}, "is not in"},
		"bad suffix":     {lifecycle.CreateOptions{Layout: "image", Space: "10X"}, "no size"},
	} {
		c.o.Template = "minimal"
		_, err := h.Create(t.Context(), 101, c.o)
		wantFault(t, name, err, fault.BadValue, c.want)
	}
	if left := files(t, h); len(left) != 1 {
		t.Errorf("left: %v", left)
	}
	put(t, h.ConfPath(102), "VE_LAYOUT=btrfs\n")
	_, err := h.Open(102)
	wantFault(t, "layout in the config", err, fault.BadValue, "btrfs")
	put(t, h.ConfPath(102), "VE_LAYOUT=ploop\nDISKSPACE=0\n")
	_, err = h.Open(102)
	wantFault(t, "size in the config", err, fault.BadValue, "is not in")
	d := minimal(t, h, 103, lifecycle.CreateOptions{})
	wantFault(t, "resize a dir", d.Resize(t.Context(), 1<<30), fault.BadValue, "has the layout dir")
	if n, err := d.Compact(t.Context()); n != 0 || err != nil {
		t.Errorf("compact a dir: %d, %v", n, err)
	}
}

func TestImageMissing(t *testing.T) {
	c := withImage(t, newHost(t), 101)
	path := filepath.Join(c.Private(), image.File)
	if err := os.Rename(path, path+"~"); err != nil {
		t.Fatal(err)
	}
	wantFault(t, "mount", c.Mount(), fault.ImageMount, "no such file")
	if s, err := c.Status(); err != nil || s.Exists {
		t.Errorf("status %+v, %v", s, err)
	}
	if _, err := os.Lstat(c.Root()); err == nil {
		t.Error("the mount point is left")
	}
}

func TestResizeImage(t *testing.T) {
	h := newHost(t)
	c := withImage(t, h, 101)
	if err := c.Resize(t.Context(), 48<<20); err != nil {
		t.Fatal(err)
	}
	fresh, err := h.Open(101)
	if err != nil || fresh.DiskSpace() != 48<<20 {
		t.Errorf("config says %d, %v", fresh.DiskSpace(), err)
	}
	if info, err := os.Stat(filepath.Join(c.Private(), image.File)); err != nil || info.Size() != 48<<20 {
		t.Errorf("image %v, %v", info, err)
	}
}

// carrier copies with cp; fail is what goes wrong behind it.
type carrier struct{ fail func() error }

func (carrier) Measure(context.Context, string) (bytes, inodes uint64, err error) {
	return 4 << 20, 1000, nil
}

func (c carrier) Copy(ctx context.Context, from, to string) error {
	if out, err := exec.CommandContext(ctx, "cp", "-a", from+"/.", to).CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	if c.fail != nil {
		return c.fail()
	}
	return nil
}

// whole checks that a container has its files and nothing lies beside them.
func whole(t *testing.T, h *lifecycle.Host, layout lifecycle.Layout) *lifecycle.Container {
	t.Helper()
	c, err := h.Open(101)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Mount(); err != nil {
		t.Fatal(err)
	}
	defer c.Umount()
	if text, err := os.ReadFile(filepath.Join(c.Root(), "mark")); err != nil || string(text) != "here" {
		t.Errorf("mark is %q, %v", text, err)
	}
	if c.Layout() != layout {
		t.Errorf("layout %s, want %s", c.Layout(), layout)
	}
	if left, err := os.ReadDir(filepath.Dir(c.Private())); err != nil || len(left) != 1 {
		t.Errorf("beside the private area: %v, %v", left, err)
	}
	return c
}

func marked(t *testing.T, h *lifecycle.Host) *lifecycle.Container {
	t.Helper()
	c := withImage(t, h, 101)
	if err := c.Mount(); err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(c.Root(), "mark"), "here")
	if err := c.Umount(); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestConvertThereAndBack(t *testing.T) {
	h := newHost(t)
	c := marked(t, h)
	wantFault(t, "to what it is", c.Convert(t.Context(), lifecycle.LayoutImage, 0, carrier{}), fault.Convert, "already")
	for _, to := range []lifecycle.Layout{lifecycle.LayoutDir, lifecycle.LayoutImage, lifecycle.LayoutDir} {
		if err := c.Convert(t.Context(), to, 0, carrier{}); err != nil {
			t.Fatal(err)
		}
		c = whole(t, h, to)
	}
	wantFault(t, "too small", c.Convert(t.Context(), lifecycle.LayoutImage, image.MinSize, tooLarge{}), fault.NoSpace, "too small")
	wantFault(t, "no room", c.Convert(t.Context(), lifecycle.LayoutImage, image.MaxSize, huge{}), fault.NoSpace, "conversion needs")
	if err := c.Mount(); err != nil {
		t.Fatal(err)
	}
	wantFault(t, "mounted", c.Convert(t.Context(), lifecycle.LayoutImage, 0, carrier{}), fault.Mounted, "is mounted")
	if err := c.Umount(); err != nil {
		t.Fatal(err)
	}
	whole(t, h, lifecycle.LayoutDir)
}

type tooLarge struct{ carrier }

func (tooLarge) Measure(context.Context, string) (bytes, inodes uint64, err error) {
	return 40 << 20, 1000, nil
}

type huge struct{ carrier }

func (huge) Measure(context.Context, string) (bytes, inodes uint64, err error) {
	return 8 << 40, 1000, nil
}

// Not even immutable files stay of what is converted or destroyed.
func TestImmutableFilesAreRemoved(t *testing.T) {
	h := newHost(t)
	c := marked(t, h)
	for _, to := range []lifecycle.Layout{lifecycle.LayoutDir, lifecycle.LayoutImage, lifecycle.LayoutDir} {
		if err := c.Convert(t.Context(), to, 0, carrier{}); err != nil {
			t.Fatal(err)
		}
		c = whole(t, h, to)
		if to == lifecycle.LayoutDir {
			sub := filepath.Join(c.Private(), "sealed")
			put(t, filepath.Join(sub, "file"), "")
			if out, err := exec.Command("chattr", "+i", filepath.Join(sub, "file"), sub).CombinedOutput(); err != nil {
				t.Fatal(err, string(out))
			}
		}
	}
	if err := c.Destroy(); err != nil {
		t.Error(err)
	}
}

func TestConvertFails(t *testing.T) {
	h := newHost(t)
	c := marked(t, h)
	boom := carrier{func() error { return errors.New("boom") }}
	wantFault(t, "to dir", c.Convert(t.Context(), lifecycle.LayoutDir, 0, boom), fault.Convert, "boom")
	c = whole(t, h, lifecycle.LayoutImage)
	if err := c.Convert(t.Context(), lifecycle.LayoutDir, 0, carrier{}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	late := carrier{func() error { cancel(); return nil }}
	if err := c.Convert(ctx, lifecycle.LayoutImage, 0, late); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	whole(t, h, lifecycle.LayoutDir)
}

// TestConvertKilled plays every state that a conversion can be left in. What
// the config says is what there is afterwards.
func TestConvertKilled(t *testing.T) {
	for name, layouts := range map[string][2]lifecycle.Layout{
		"image to dir": {lifecycle.LayoutImage, lifecycle.LayoutDir}, "dir to image": {lifecycle.LayoutDir, lifecycle.LayoutImage},
	} {
		for _, renames := range []int{0, 1, 2} {
			t.Run(fmt.Sprint(name, " ", renames), func(t *testing.T) {
				h := newHost(t)
				c := marked(t, h)
				if layouts[0] == lifecycle.LayoutDir {
					if err := c.Convert(t.Context(), lifecycle.LayoutDir, 0, carrier{}); err != nil {
						t.Fatal(err)
					}
				}
				beside := filepath.Join(filepath.Dir(c.Private()), ".convert-101")
				old, area := filepath.Join(beside, string(layouts[0])), filepath.Join(beside, string(layouts[1]))
				put(t, filepath.Join(area, "half"), "")
				if renames > 0 {
					rename(t, c.Private(), old)
				}
				if renames > 1 {
					rename(t, area, c.Private())
				}
				whole(t, h, layouts[0])
			})
		}
		t.Run(name+" config saved", func(t *testing.T) {
			h := newHost(t)
			c := marked(t, h)
			if layouts[1] == lifecycle.LayoutDir {
				if err := c.Convert(t.Context(), lifecycle.LayoutDir, 0, carrier{}); err != nil {
					t.Fatal(err)
				}
			}
			put(t, filepath.Join(filepath.Dir(c.Private()), ".convert-101", string(layouts[0]), "old"), "")
			whole(t, h, layouts[1])
		})
	}
}

func rename(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

// A shell can be made before its image is there, and takes that away again.
func TestPrepareForArrivingImage(t *testing.T) {
	h := newHost(t)
	c := marked(t, h)
	shell, err := c.Prepare("")
	if err != nil {
		t.Fatal(err)
	}
	defer shell.Close()
	if s, err := c.Status(); err != nil || s.Mounted {
		t.Errorf("before it comes: %+v, %v", s, err)
	}
	staging := filepath.Join(filepath.Dir(c.Private()), ".migrate-101-x")
	if err := os.Mkdir(staging, 0o755); err != nil {
		t.Fatal(err)
	}
	a, err := c.ArrivingArea(staging)
	if err != nil {
		t.Fatal(err)
	}
	if err := shell.Mount(a); err == nil {
		t.Error("mounted without an image")
	}
	rename(t, c.Image().Path(), filepath.Join(staging, image.File))
	if err := shell.Mount(a); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(filepath.Join(c.Root(), "mark")); err != nil || string(text) != "here" {
		t.Errorf("mark is %q, %v", text, err)
	}
	if info, err := os.Stat(staging); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", info, err)
	}
	if err := errors.Join(a.Close(), shell.Close()); err != nil {
		t.Error(err)
	}
	wantUnmounted(t, c)
	rename(t, filepath.Join(staging, image.File), c.Image().Path())
	if err := os.Remove(staging); err != nil {
		t.Error(err)
	}
	whole(t, h, lifecycle.LayoutImage)
}
