package treecheck

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func snapshot(t *testing.T, root string) Tree {
	t.Helper()
	tree, err := Snapshot(root)
	must(t, err)
	return tree
}

// sealed is a directory that may hold immutable files.
func sealed(t *testing.T) string {
	root := t.TempDir()
	t.Cleanup(func() {
		if err := Unseal(root); err != nil {
			t.Error(err)
		}
	})
	return root
}

// TestCompareFinds changes one thing of two equal trees.
func TestCompareFinds(t *testing.T) {
	for field, change := range map[string]func(at func(string) string) error{
		"type":  func(at func(string) string) error { return os.Remove(at("empty")) },
		"mode":  func(at func(string) string) error { return unix.Chmod(at("file"), 0o4755) },
		"owner": func(at func(string) string) error { return os.Lchown(at("symlink"), 0, 1<<31) },
		"device": func(at func(string) string) error {
			must(t, os.Remove(at("device")))
			return unix.Mknod(at("device"), unix.S_IFCHR|0o600, int(unix.Mkdev(1, 4)))
		},
		"target": func(at func(string) string) error {
			must(t, os.Remove(at("symlink")))
			return os.Symlink("elsewhere", at("symlink"))
		},
		"mtime": func(at func(string) string) error { return setAll(at("symlink"), unix.Timespec{Sec: 5, Nsec: 2}) },
		Atime:   func(at func(string) string) error { return setAll(at("dir"), unix.Timespec{Sec: 5, Nsec: 2}) },
		Flags:   func(at func(string) string) error { return setFlag(at("file"), flagNoDump) },
		"size":  func(at func(string) string) error { return os.Truncate(at("sparse"), 9<<20) },
		"same inode as": func(at func(string) string) error {
			must(t, os.Remove(at("dir/linked")))
			return os.WriteFile(at("dir/linked"), []byte("content"), 0o644)
		},
		"hard links":                    func(at func(string) string) error { return os.Link(at("file"), at("more")) },
		"hard links with those outside": func(at func(string) string) error { return os.Link(at("file"), at("../more")) },
		`attribute "trusted.x"`:         func(at func(string) string) error { return unix.Lsetxattr(at("symlink"), "trusted.x", nil, 0) },
		"content from 4194304":          func(at func(string) string) error { return poke(at("sparse"), 4<<20+5, "x") },
		"content from 8323072":          func(at func(string) string) error { return poke(at("sparse"), 8<<20-5, "y") },
		"bytes of data":                 func(at func(string) string) error { return poke(at("sparse"), 1<<20, string(make([]byte, 1<<20))) },
		"bytes allocated":               allocateAll,
	} {
		t.Run(field, func(t *testing.T) {
			want, dir := t.TempDir(), t.TempDir()+"/tree"
			must(t, os.Mkdir(dir, 0o755))
			makeSample(t, want)
			makeSample(t, dir)
			if ds := Compare(snapshot(t, want), snapshot(t, dir)); len(ds) > 0 {
				t.Fatalf("equal trees differ: %v", ds)
			}
			must(t, change(func(name string) string { return filepath.Join(dir, name) }))
			ds := Compare(snapshot(t, want), snapshot(t, dir))
			if !slices.ContainsFunc(ds, func(d Difference) bool { return d.Field == field }) {
				t.Errorf("found only %v", ds)
			}
			if left := Without(ds, field); len(left) >= len(ds) {
				t.Errorf("left without %s: %v", field, left)
			}
		})
	}
}

// makeSample makes a tree whose times are all the same.
func makeSample(t *testing.T, root string) {
	t.Helper()
	at := func(name string) string { return filepath.Join(root, name) }
	must(t, os.Mkdir(at("dir"), 0o755))
	must(t, os.WriteFile(at("file"), []byte("content"), 0o644))
	must(t, os.Link(at("file"), at("dir/linked")))
	must(t, os.WriteFile(at("empty"), nil, 0o600))
	must(t, os.Symlink("nowhere", at("symlink")))
	must(t, unix.Mknod(at("device"), unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))))
	must(t, os.WriteFile(at("sparse"), []byte("start"), 0o644))
	must(t, poke(at("sparse"), 8<<20-5, "end.."))
	for _, name := range []string{"file", "empty", "symlink", "device", "sparse", "dir", "."} {
		must(t, setAll(at(name), unix.Timespec{Sec: 5, Nsec: 1}))
	}
}

func setAll(path string, ts unix.Timespec) error {
	return unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW)
}

func setFlag(path string, flag uint32) error {
	return withFile(unix.AT_FDCWD, path, unix.O_RDONLY, func(fd int) error { return changeFlags(fd, flag, 0) })
}

func poke(path string, at int64, content string) error {
	return withFile(unix.AT_FDCWD, path, unix.O_WRONLY, func(fd int) error { return pwriteAll(fd, []byte(content), at) })
}

func allocateAll(at func(string) string) error {
	return withFile(unix.AT_FDCWD, at("sparse"), unix.O_WRONLY, func(fd int) error { return unix.Fallocate(fd, 0, 0, 8<<20) })
}

// TestZerosAreHoles: stored zeros are no difference, while they are few.
func TestZerosAreHoles(t *testing.T) {
	want, got := t.TempDir(), t.TempDir()
	makeSample(t, want)
	makeSample(t, got)
	must(t, poke(got+"/sparse", 4<<20, string(make([]byte, 8192))))
	must(t, setAll(got+"/sparse", unix.Timespec{Sec: 5, Nsec: 1}))
	if ds := Compare(snapshot(t, want), snapshot(t, got)); len(ds) > 0 {
		t.Errorf("differ: %v", ds)
	}
}

// TestLooksTouchNothing: no access time moves, neither by a look nor by a
// mutation that finds nothing to do with an entry.
func TestLooksTouchNothing(t *testing.T) {
	root := t.TempDir()
	makeSample(t, root)
	first := snapshot(t, root)
	if _, err := Mutate(root, 1, 0, Options{}); err != nil {
		t.Fatal(err)
	}
	m, err := NewMutator(root, 1, Options{})
	must(t, err)
	defer m.Close()
	for range 20 {
		_, err := m.pickAny()
		must(t, err)
		m.release()
	}
	if ds := Compare(first, snapshot(t, root)); len(ds) > 0 {
		t.Errorf("touched: %v", ds)
	}
	if first["symlink"].Atime != (unix.Timespec{Sec: 5, Nsec: 1}) || len(first) != 8 {
		t.Errorf("read %d entries, %+v", len(first), first["symlink"])
	}
}

var everything = Options{Entries: 250, Crowd: 300, Flags: true, Deep: true}

// TestSameSeed makes and changes two trees by one seed, and one by another.
func TestSameSeed(t *testing.T) {
	t.Parallel()
	tree := func(seed uint64) (Tree, []string) {
		root := sealed(t)
		with := everything
		with.Large = true
		must(t, Generate(root, seed, with))
		log, err := Mutate(root, seed, 100, everything)
		must(t, err)
		return snapshot(t, root), log
	}
	a, logA := tree(1)
	b, logB := tree(1)
	c, _ := tree(2)
	if !slices.Equal(logA, logB) || len(logA) != 100 {
		t.Errorf("changes\n%q\n%q", logA, logB)
	}
	moments := []string{Atime, "mtime", "bytes allocated"}
	if ds := Without(Compare(a, b), moments...); len(ds) > 0 {
		t.Errorf("the same seed: %v", ds)
	}
	if len(Without(Compare(a, c), moments...)) < 50 {
		t.Error("another seed makes the same tree")
	}
}

// TestGenerateHasAll lists what issue-like trees are made of and looks for it.
func TestGenerateHasAll(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for seed := range uint64(6) {
		root := sealed(t)
		must(t, Generate(root, seed, everything))
		for path, e := range snapshot(t, root) {
			for _, what := range features(path, e) {
				seen[what] = true
			}
		}
	}
	for _, what := range []string{
		"file", "directory", "symbolic link", "FIFO", "socket", "character device", "block device",
		"holes", "hard links", "hard links across directories", "setuid", "setgid", "sticky", "before 1970", "after 2038",
		"capability 2", "capability 3", "system.posix_acl_access", "system.posix_acl_default", "trusted.t0 of a symbolic link",
		"trusted.t0 of a socket", "not UTF-8", "255 bytes", "beyond PATH_MAX", "empty file", "crowd", "target of 4095 bytes",
		"immutable", "append", "nodump", "noatime", "sync", "beyond 32 bits",
	} {
		if !seen[what] {
			t.Errorf("no tree has %s", what)
		}
	}
}

func features(path string, e *Entry) []string {
	name := filepath.Base(path)
	found := []string{e.kind()}
	for what, is := range map[string]bool{
		"holes":                         total(e.Data) < e.Size,
		"hard links":                    e.Links > 1,
		"hard links across directories": filepath.Dir(e.First) != filepath.Dir(path),
		"setuid":                        e.Mode&unix.S_ISUID != 0,
		"setgid":                        e.Mode&unix.S_ISGID != 0,
		"sticky":                        e.Mode&unix.S_ISVTX != 0,
		"before 1970":                   e.Mtime.Sec < 0,
		"after 2038":                    e.Mtime.Sec > 1<<31,
		"beyond 32 bits":                e.Mtime.Sec > 1<<32,
		"capability 2":                  len(e.Xattrs["security.capability"]) == 20,
		"capability 3":                  len(e.Xattrs["security.capability"]) == 24,
		"not UTF-8":                     strings.HasPrefix(name, "\xff"),
		"255 bytes":                     len(name) == 255,
		"beyond PATH_MAX":               len(path) > unix.PathMax,
		"empty file":                    isFile(e) && e.Size == 0,
		"crowd":                         strings.HasSuffix(path, "crowd/entry-299"),
		"target of 4095 bytes":          len(e.Target) == 4095,
	} {
		if is {
			found = append(found, what)
		}
	}
	for name := range e.Xattrs {
		found = append(found, name, name+" of a "+e.kind())
	}
	for _, f := range flagNames {
		if e.Flags&f.flag != 0 {
			found = append(found, f.name)
		}
	}
	return found
}

func isFile(e *Entry) bool { return e.Mode&unix.S_IFMT == unix.S_IFREG }

// TestEveryChangeHappens: none of the changes is impossible by mistake.
func TestEveryChangeHappens(t *testing.T) {
	t.Parallel()
	root := sealed(t)
	must(t, Generate(root, 3, Options{Flags: true}))
	log, err := Mutate(root, 3, 1500, Options{Flags: true})
	must(t, err)
	for _, c := range changesAndFlags {
		if c.name == "set project of" { // ext4 and tmpfs of most machines have none
			continue
		}
		if !slices.ContainsFunc(log, func(s string) bool { return strings.HasPrefix(s, c.name+" ") }) {
			t.Errorf("no change is: %s", c.name)
		}
	}
}

func TestChangesAreSeen(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	must(t, Generate(root, 4, Options{}))
	for seed := range uint64(60) {
		before := snapshot(t, root)
		log, err := Mutate(root, seed, 1, Options{})
		must(t, err)
		if len(Compare(before, snapshot(t, root))) == 0 && !amongLinks(log[0]) {
			t.Errorf("not seen: %s", log)
		}
	}
}

// amongLinks reports whether a change may have been one of two names of the same
// inode, and so none (rename(2)).
func amongLinks(change string) bool {
	return strings.HasPrefix(change, "rename") || strings.HasPrefix(change, "swap")
}

func TestCompareByRsync(t *testing.T) {
	want, got := t.TempDir(), t.TempDir()
	makeSample(t, want)
	makeSample(t, got)
	must(t, CompareByRsync(want, got))
	must(t, poke(got+"/file", 0, "C"))
	must(t, setAll(got+"/file", unix.Timespec{Sec: 5, Nsec: 1}))
	if err := CompareByRsync(want, got); err == nil || !strings.Contains(err.Error(), "file") {
		t.Errorf("err = %v", err)
	}
}

func TestUnseal(t *testing.T) {
	root := sealed(t)
	must(t, os.MkdirAll(root+"/d", 0o755))
	must(t, os.WriteFile(root+"/d/f", nil, 0o644))
	must(t, setFlag(root+"/d/f", flagAppend))
	must(t, setFlag(root+"/d", flagImmutable))
	if os.RemoveAll(root+"/d") == nil {
		t.Error("sealed tree can be removed")
	}
	must(t, Unseal(root))
	must(t, os.RemoveAll(root+"/d"))
}

func TestErrorsNameThePlace(t *testing.T) {
	missing := t.TempDir() + "/missing"
	_, err := Snapshot(missing)
	_, errMutate := Mutate(missing, 1, 1, Options{})
	_, errEmpty := Snapshot(missing)
	for _, err := range []error{err, errMutate, errEmpty, Unseal(missing), Generate(missing, 1, Options{})} {
		if err == nil || !strings.Contains(err.Error(), fmt.Sprint(missing)) {
			t.Errorf("err = %v", err)
		}
	}
}
