package files

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/vzkit/vzkit/internal/fault"
	"golang.org/x/sys/unix"
)

// flagged is the entry with flags.
func flagged(e entry, flags uint32) entry {
	e.flags = flags
	return e
}

func (s *stage) flags(path string) (flags, project uint32) {
	s.t.Helper()
	fd, err := unix.Open(s.dir+"/"+path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	must(s.t, err)
	defer unix.Close(fd)
	flags, project, err = readFlags(fd)
	must(s.t, err)
	return flags, project
}

func (s *stage) wantFlags(want map[string]uint32) {
	s.t.Helper()
	for path, flags := range want {
		if got, _ := s.flags(path); got != flags {
			s.t.Errorf("%q: flags %#x, want %#x", path, got, flags)
		}
	}
}

func flaggedFile(name string, flags uint32) packed {
	p := whole(name, "x")
	p.flags = flags
	return p
}

// TestFlags seals entries, and changes them all the same in later passes.
func TestFlags(t *testing.T) {
	s := newStage(t)
	s.pass(entryFrame(folder("")),
		entryFrame(flagged(folder("d"), flagImmutable|flagNoDump)), entryFrame(flagged(folder("d/sub"), flagAppend)),
		batchFrame("d", flaggedFile("i", flagImmutable), flaggedFile("a", flagAppend|flagNoAtime), flaggedFile("n", flagSync|flagNoDump), flaggedFile("doomed", flagImmutable)),
		batchFrame("", flaggedFile("moved", flagImmutable), flaggedFile("replaced", flagImmutable), flaggedFile("cleared", flagImmutable)),
		entryFrame(hardlink("link", "moved")))
	s.wantFlags(map[string]uint32{"d": flagNoDump, "d/i": 0, "d/a": flagNoAtime, "d/n": flagSync | flagNoDump, "moved": 0})
	cleared := flaggedFile("cleared", 0)
	cleared.basis = basisSame
	s.pass(deleteFrame("d/doomed"), asideFrame(1, "moved"), backFrame(1, "d/moved"), deleteFrame("link"),
		batchFrame("", whole("replaced", "y"), cleared), batchFrame("d", whole("new", "z")))
	must(t, s.Finish())
	want := map[string]uint32{
		"": 0, "d": flagImmutable | flagNoDump, "d/sub": flagAppend, "d/i": flagImmutable, "d/a": flagAppend | flagNoAtime,
		"d/n": flagSync | flagNoDump, "d/moved": flagImmutable, "replaced": 0, "cleared": 0, "d/new": 0,
	}
	s.wantFlags(want)
	if err := os.Remove(s.dir + "/d/i"); !errors.Is(err, unix.EPERM) {
		t.Errorf("remove what is sealed: %v", err)
	}
	s.pass(deleteFrame("d/i"), entryFrame(flagged(folder("d"), 0)))
	must(t, s.Finish())
	delete(want, "d/i")
	want["d"] = 0
	s.wantFlags(want)
}

// TestSealedRoot is the one that the rename at the end must come before.
func TestSealedRoot(t *testing.T) {
	s := newStage(t)
	s.pass(entryFrame(flagged(folder(""), flagImmutable)), batchFrame("", flaggedFile("f", flagImmutable)))
	must(t, s.Finish())
	s.wantFlags(map[string]uint32{"": 0, "f": flagImmutable})
	must(t, s.SealRoot())
	s.wantFlags(map[string]uint32{"": flagImmutable})
	s.pass(deleteFrame("f"))
}

// projects mounts a file system with project identifiers.
func projects(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	must(t, os.Mkdir(dir+"/mnt", 0o700))
	if err := mountExt4(t, dir, "-O", "project,quota", "-E", "quotatype=prjquota"); err != nil {
		must(t, mountExt4(t, dir)) // not for want of loop devices
		must(t, unix.Unmount(dir+"/mnt", 0))
		t.Skipf("kernel without project quota: %v", err)
	}
	t.Cleanup(func() { must(t, unix.Unmount(dir+"/mnt", 0)) })
	return dir + "/mnt"
}

func mountExt4(t *testing.T, dir string, options ...string) error {
	t.Helper()
	image := dir + "/image"
	must(t, os.WriteFile(image, nil, 0o600))
	must(t, os.Truncate(image, 16<<20))
	if out, err := exec.Command("mkfs.ext4", append(options, "-q", image)...).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.ext4: %v %s", err, out)
	}
	out, err := exec.Command("mount", "-o", "loop", image, dir+"/mnt").CombinedOutput()
	if err != nil {
		return fmt.Errorf("mount: %w %s", err, out)
	}
	return nil
}

// TestProjects has directories hand down what their entries are not to have.
func TestProjects(t *testing.T) {
	s := stageIn(t, projects(t))
	in := func(p packed, project uint32) packed { p.project = project; return p }
	d := flagged(folder("d"), flagProjInherit|flagSync|flagNoAtime)
	d.project = 5
	other := whole("other", "x")
	other.project = 6
	s.pass(entryFrame(folder("")), entryFrame(d), batchFrame("d", whole("none", "x"), in(whole("own", "x"), 5)), batchFrame("", other))
	s.pass(batchFrame("d", whole("later", "x"), in(flaggedFile("flagged", flagSync), 5)),
		entryFrame(folder("d/plain")), entryFrame(file("d/plain/f", 0)), dataFrame(0, ""),
		entryFrame(hardlink("d/link", "other")), asideFrame(1, "d/none"), backFrame(1, "d/back"), asideFrame(2, "other"), backFrame(2, "d/other"))
	must(t, s.Finish())
	for path, want := range map[string][2]uint32{
		"d": {d.flags, 5}, "d/own": {0, 5}, "d/later": {0, 0}, "d/flagged": {flagSync, 5}, "d/plain": {0, 0}, "d/plain/f": {0, 0},
		"d/link": {0, 6}, "d/back": {0, 0}, "d/other": {0, 6},
	} {
		if flags, project := s.flags(path); flags != want[0] || project != want[1] {
			t.Errorf("%s: flags %#x, project %d; want %#x", path, flags, project, want)
		}
	}
}

// bare mounts a file system that keeps neither attributes nor flags.
func bare(t *testing.T) string {
	t.Helper()
	mnt := t.TempDir()
	must(t, unix.Mount("ramfs", mnt, "ramfs", 0, ""))
	t.Cleanup(func() { must(t, unix.Unmount(mnt, 0)) })
	return mnt
}

// lossy is entries that a bare file system cannot keep all of.
func lossy() map[string]entry {
	with := func(name string, value []byte) entry {
		e := file("f", 0)
		e.xattrs = []xattr{{name, value}}
		return e
	}
	project := file("f", 0)
	project.project = 5
	return map[string]entry{
		lossXattrs + "user":     with("user.a", []byte("b")),
		lossXattrs + "security": with("security.capability", netRaw()),
		lossACLs:                with("system.posix_acl_access", probeACL()),
		lossFlags:               flagged(file("f", 0), flagNoDump),
		lossFlags + " to seal":  flagged(file("f", 0), flagImmutable),
		lossProjects:            project,
	}
}

func TestLossIsRefused(t *testing.T) {
	mnt := bare(t)
	for what, e := range lossy() {
		t.Run(what, func(t *testing.T) {
			s := stageIn(t, mnt)
			err := s.play(batchFrame("", packed{e, ""}))
			what = strings.TrimSuffix(what, " to seal")
			if fault.KindOf(err) != fault.Copy || !strings.Contains(fault.HintOf(err), "--lossy") || !strings.Contains(err.Error(), what) || !strings.Contains(err.Error(), `"f"`) {
				t.Errorf("err = %v", err)
			}
		})
	}
	t.Run("nothing to lose", func(t *testing.T) {
		s := stageIn(t, mnt)
		s.pass(entryFrame(folder("")), batchFrame("", whole("f", "x")), entryFrame(symlink("s", "t")))
		must(t, s.Finish())
	})
}

func TestLossIsReported(t *testing.T) {
	s := stageIn(t, bare(t))
	got := map[string]uint64{}
	s.SetLossy(func(what string, n uint64) { got[what] += n })
	fs := []frame{entryFrame(folder("")), entryFrame(folder("d"))}
	for _, e := range lossy() {
		many := e
		many.xattrs = append(many.xattrs, xattr{"trusted.one", nil}, xattr{"trusted.two", nil})
		fs = append(fs, batchFrame("d", packed{many, ""}))
		e.path = "e"
		fs = append(fs, entryFrame(e), dataFrame(0, ""), deleteFrame("e"))
	}
	s.pass(fs...)
	must(t, s.Finish())
	for what, n := range map[string]uint64{
		lossXattrs + "user": 2, lossXattrs + "security": 2, lossXattrs + "trusted": 6, lossACLs: 2, lossFlags: 4, lossProjects: 2,
	} {
		if got[what] != n {
			t.Errorf("%s: %d, want %d", what, got[what], n)
		}
	}
}

func TestLosses(t *testing.T) {
	mnt := bare(t)
	lost, err := Losses(mnt)
	must(t, err)
	for what := range lossy() {
		if !strings.HasSuffix(what, "seal") && !slices.Contains(lost, what) {
			t.Errorf("%s: not noticed in %q", what, lost)
		}
	}
	lost, err = Losses(t.TempDir())
	lost = slices.DeleteFunc(lost, func(what string) bool { return what == lossProjects }) // ext4 may have none
	if err != nil || len(lost) > 0 {
		t.Errorf("ext4: %q, %v", lost, err)
	}
	if left, err := os.ReadDir(mnt); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	if _, err := Losses(mnt + "/missing"); fault.KindOf(err) != fault.Copy {
		t.Errorf("err = %v", err)
	}
}
