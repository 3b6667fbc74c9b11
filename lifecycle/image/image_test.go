package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vzkit/vzkit/internal/fault"
)

const mebi = 1 << 20

// newImage is an image of size bytes. No device is left of it at the end.
func newImage(t *testing.T, size int64) Image {
	t.Helper()
	if _, err := os.Stat("/dev/loop-control"); err != nil {
		t.Skip("this machine has no loop devices:", err)
	}
	i := Image{Dir: t.TempDir(), Label: fmt.Sprintf("test %s", t.Name())}
	must(t, i.Make(t.Context(), size, 0))
	t.Cleanup(func() {
		must(t, i.Detach())
		f, err := i.own(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
	})
	return i
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func attach(t *testing.T, i Image) string {
	t.Helper()
	dir, err := i.Attach(t.Context())
	must(t, err)
	return dir
}

func wantFault(t *testing.T, what string, err error, kind fault.Kind, text string) {
	t.Helper()
	if err == nil || fault.KindOf(err) != kind || !strings.Contains(err.Error(), text) {
		t.Errorf("%s: error %v of kind %d, want kind %d and %q", what, err, fault.KindOf(err), kind, text)
	}
}

func write(t *testing.T, path string, size int) {
	t.Helper()
	f, err := os.Create(path)
	must(t, err)
	_, err = f.Write(bytes.Repeat([]byte("x"), size))
	must(t, errors.Join(err, f.Sync(), f.Close()))
}

func sizeOf(t *testing.T, i Image) int64 {
	t.Helper()
	info, err := os.Stat(i.Path())
	must(t, err)
	return info.Size()
}

// Usage is how full an image is, in bytes.
type Usage struct {
	Size   int64 // that the container has: without the balloon
	Used   int64 // of it, by files and by the file system itself
	OnDisk int64 // what root.img takes of the host's disk
}

func usage(t *testing.T, i Image) (u Usage) {
	t.Helper()
	must(t, i.within(t.Context(), func(top *os.File) error {
		s, err := i.look(top)
		u = Usage{Size: s.size - s.balloon, Used: s.size - s.balloon - s.free}
		return err
	}))
	n, err := i.onDisk()
	must(t, err)
	u.OnDisk = n
	return u
}

// fsck has e2fsck look at all of an image that nobody uses.
func fsck(t *testing.T, i Image) {
	t.Helper()
	if out, err := exec.Command("/usr/sbin/e2fsck", "-f", "-n", i.Path()).CombinedOutput(); err != nil {
		t.Errorf("e2fsck: %v\n%s", err, out)
	}
}

func TestMakeAndAttach(t *testing.T) {
	i := newImage(t, 10<<30)
	if u := usage(t, i); u.OnDisk > 8*mebi || u.Size != 10<<30 {
		t.Errorf("a new image: %+v", u)
	}
	dir := attach(t, i)
	if names, err := os.ReadDir(dir); err != nil || len(names) != 0 {
		t.Errorf("in a new image: %v, %v", names, err)
	}
	write(t, filepath.Join(dir, "file"), 100)
	if _, err := os.Stat(filepath.Join(dir, "..", File)); err != nil {
		t.Errorf("beside the files: %v", err)
	}
	must(t, i.Detach())
	if names, err := os.ReadDir(i.Dir); err != nil || len(names) != 1 {
		t.Errorf("left after detaching: %v, %v", names, err)
	}
	fsck(t, i)
	if text, err := os.ReadFile(filepath.Join(attach(t, i), "file")); err != nil || len(text) != 100 {
		t.Errorf("%d bytes, %v", len(text), err)
	}
}

// A second mount is the same file system by the same device, not another one
// over the same blocks.
func TestOneDevice(t *testing.T) {
	i := newImage(t, MinSize)
	here, there := attach(t, i), t.TempDir()
	must(t, i.Mount(t.Context(), there))
	defer unix.Unmount(there, unix.MNT_DETACH)
	write(t, filepath.Join(here, "file"), 1)
	var a, b unix.Stat_t
	must(t, errors.Join(unix.Stat(filepath.Join(here, "file"), &a), unix.Stat(filepath.Join(there, "file"), &b)))
	if a.Dev != b.Dev || a.Ino != b.Ino || unix.Major(a.Dev) != LoopMajor {
		t.Errorf("devices %x and %x", a.Dev, b.Dev)
	}
	if label := LabelOf(int(unix.Minor(a.Dev))); label != i.Label {
		t.Errorf("label %q", label)
	}
	must(t, i.Detach())
	if idle, err := i.idle(); err != nil || idle {
		t.Errorf("idle %v, %v while it is mounted once more", idle, err)
	}
}

// Whoever has locked the file without a device keeps us off.
func TestInUseElsewhere(t *testing.T) {
	i := newImage(t, MinSize)
	f, err := i.own(t.Context())
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = i.Attach(ctx)
	wantFault(t, "attach", err, fault.ImageMount, "in use elsewhere")
	if _, err := os.Lstat(filepath.Join(i.Dir, Point)); err == nil {
		t.Error("the mount point is left")
	}
	f.Close()
	attach(t, i)
}

// full checks that a file system that has used so many bytes, and is as large as
// it should be, takes no more than that.
func full(t *testing.T, i Image, dir string, size, file int64) {
	t.Helper()
	if u := usage(t, i); u.Size != size || sizeOf(t, i) != file || u.Used < 8*mebi || u.Used > u.Size || u.OnDisk > 24*mebi {
		t.Errorf("resized to %d: %+v, file of %d", size, u, sizeOf(t, i))
	}
	f, err := os.Create(filepath.Join(dir, "fill"))
	must(t, err)
	defer f.Close()
	got := int64(0)
	for chunk := int64(mebi); chunk >= blockSize; {
		if unix.Fallocate(int(f.Fd()), 0, got, chunk) != nil {
			chunk /= 2
			continue
		}
		got += chunk
	}
	if got > size-8*mebi || got < size-24*mebi {
		t.Errorf("of %d bytes, %d were free", size, got)
	}
	must(t, os.Remove(f.Name()))
}

func TestResizeInUse(t *testing.T) {
	i := newImage(t, 64*mebi)
	dir := attach(t, i)
	write(t, filepath.Join(dir, "file"), 8*mebi)
	for _, size := range []int64{48 * mebi, 56 * mebi, 40 * mebi, 64 * mebi} {
		must(t, i.Resize(t.Context(), size))
		full(t, i, dir, size, 64*mebi)
	}
	before := usage(t, i)
	write(t, filepath.Join(dir, "more"), 30*mebi)
	wantFault(t, "less than is used", i.Resize(t.Context(), MinSize), fault.ImageResize, "more than")
	if after := usage(t, i); after.Size != before.Size {
		t.Errorf("refused, and changed: %+v", after)
	}
	must(t, os.Remove(filepath.Join(dir, "more")))
	must(t, i.Resize(t.Context(), 48*mebi))
	err := i.Resize(t.Context(), 96*mebi)
	if !capable() {
		wantFault(t, "grow", err, fault.ImageResize, "CAP_SYS_RESOURCE")
		full(t, i, dir, 48*mebi, 64*mebi)
	} else {
		must(t, err)
		full(t, i, dir, 96*mebi, 96*mebi)
	}
	must(t, i.Detach())
	fsck(t, i)
}

func TestResizeUnused(t *testing.T) {
	i := newImage(t, 64*mebi)
	dir := attach(t, i)
	write(t, filepath.Join(dir, "file"), 8*mebi)
	must(t, i.Resize(t.Context(), 48*mebi)) // a balloon, which goes away now:
	must(t, i.Detach())
	for _, size := range []int64{48 * mebi, 96 * mebi, 40 * mebi, 40 * mebi} {
		must(t, i.Resize(t.Context(), size))
		fsck(t, i)
		dir := attach(t, i)
		full(t, i, dir, size, size)
		must(t, i.Detach())
	}
}

func TestResizeRefusals(t *testing.T) {
	i := newImage(t, MinSize)
	for _, size := range []int64{0, -1, MinSize - 1, MaxSize + 1} {
		wantFault(t, "resize", i.Resize(t.Context(), size), fault.BadValue, "is not in")
		other := Image{Dir: t.TempDir()}
		wantFault(t, "make", other.Make(t.Context(), size, 0), fault.BadValue, "is not in")
		if ok, err := other.Exists(); ok || err != nil {
			t.Errorf("a refused image is there, %v", err)
		}
	}
	wantFault(t, "make twice", i.Make(t.Context(), MinSize, 0), fault.ImageCreate, "create image")
}

func TestCompact(t *testing.T) {
	i := newImage(t, 64*mebi)
	dir := attach(t, i)
	write(t, filepath.Join(dir, "file"), 20*mebi)
	must(t, os.Remove(filepath.Join(dir, "file")))
	if freed, err := i.Compact(t.Context()); err != nil || freed < 19*mebi {
		t.Errorf("in use: %d bytes given back, %v", freed, err)
	}
	write(t, filepath.Join(dir, "file"), 10*mebi)
	must(t, errors.Join(os.Remove(filepath.Join(dir, "file")), i.Detach()))
	if freed, err := i.Compact(t.Context()); err != nil || freed < 9*mebi {
		t.Errorf("not in use: %d bytes given back, %v", freed, err)
	}
	fsck(t, i)
}

func TestDamaged(t *testing.T) {
	i := newImage(t, MinSize)
	zeros := make([]byte, 64<<10)
	f, err := os.OpenFile(i.Path(), os.O_WRONLY, 0)
	must(t, err)
	whole := make([]byte, len(zeros))
	g, err := os.Open(i.Path())
	must(t, err)
	_, err = g.ReadAt(whole, 0)
	must(t, err)
	_, err = f.WriteAt(zeros, 0)
	must(t, err)
	_, err = i.Attach(t.Context())
	wantFault(t, "superblock gone", err, fault.ImageMount, "is damaged")
	if !strings.Contains(fault.HintOf(err), i.Path()) {
		t.Errorf("hint %q", fault.HintOf(err))
	}
	_, err = f.WriteAt(whole, 0)
	must(t, errors.Join(err, f.Truncate(1), f.Close(), g.Close()))
	_, err = i.Attach(t.Context())
	wantFault(t, "cut off", err, fault.ImageMount, "of 1 bytes")
	must(t, os.Truncate(i.Path(), MinSize))
	must(t, os.Rename(i.Path(), i.Path()+"~"))
	_, err = i.Attach(t.Context())
	wantFault(t, "missing", err, fault.ImageMount, "no such file")
	must(t, os.Symlink(i.Path()+"~", i.Path()))
	_, err = i.Attach(t.Context())
	wantFault(t, "a link", err, fault.ImageMount, "too many levels")
	if _, err := i.Exists(); fault.KindOf(err) != fault.ImageMount {
		t.Errorf("a link exists: %v", err)
	}
	must(t, os.Rename(i.Path()+"~", i.Path()))
}

func TestFits(t *testing.T) {
	for _, c := range []struct {
		size          int64
		bytes, inodes uint64
		ok            bool
	}{
		{64 * mebi, 40 * mebi, 100, true}, {64 * mebi, 60 * mebi, 100, false}, {1 << 30, 1 << 20, 4 << 20, false}, {2 << 30, 1 << 20, 1 << 20, true},
	} {
		err := Fits(c.size, c.bytes, c.inodes)
		if (err == nil) != c.ok {
			t.Errorf("%+v: %v", c, err)
		}
		if err != nil && fault.KindOf(err) != fault.NoSpace {
			t.Errorf("%+v: kind %d", c, fault.KindOf(err))
		}
	}
}

func TestInodesAsAsked(t *testing.T) {
	if _, err := os.Stat("/dev/loop-control"); err != nil {
		t.Skip("this machine has no loop devices:", err)
	}
	i := Image{Dir: t.TempDir()}
	must(t, i.Make(t.Context(), 64*mebi, 20000))
	dir := attach(t, i)
	var fs unix.Statfs_t
	must(t, errors.Join(unix.Statfs(dir, &fs), i.Detach()))
	if fs.Ffree < 20000 {
		t.Errorf("room for %d files", fs.Ffree)
	}
}
