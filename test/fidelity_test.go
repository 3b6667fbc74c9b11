package test

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vzkit/vzkit/internal/treecheck"
	"github.com/vzkit/vzkit/lifecycle/template"
	"github.com/vzkit/vzkit/transport"
	"github.com/vzkit/vzkit/transport/files"
)

// distributions are trees as people have them: a Debian that was built here, and
// what this machine itself runs on.
var distributions = map[string]func(t *testing.T, root string){"template": unpackDebian, "machine": copyMachine}

// A distribution goes over in passes, with all that files can have and with
// changes between. After each pass rsync finds no difference, and neither does a
// checker that sees what rsync does not.
func TestFidelity(t *testing.T) {
	t.Parallel()
	for name, plant := range distributions {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := scratch(t)
			plant(t, dir+"/src")
			decorate(t, dir+"/src")
			p := newPassage(t, dir+"/src", dir+"/dst")
			p.pass(files.PassOptions{})
			p.compare()
			p.mutate(treecheck.Options{Flags: true})
			p.pass(files.PassOptions{All: true}) // changes of flags are not reported
			p.compare(treecheck.Atime)           // rsync has read all files of both
			p.mutate(treecheck.Options{})
			p.pass(files.PassOptions{Frozen: true})
			p.compare(treecheck.Atime)
		})
	}
}

// scratch is a directory on the suite's ground that may hold immutable files.
func scratch(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp(ground, "fidelity-")
	must(t, err)
	t.Cleanup(func() { must(t, treecheck.Unseal(dir), os.RemoveAll(dir)) })
	return dir
}

func unpackDebian(t *testing.T, root string) {
	t.Helper()
	must(t, os.Mkdir(root, 0o755))
	must(t, template.Store{Dir: debianStore(t)}.Extract(t.Context(), debian, root, template.IDShift{}))
}

// copyMachine copies some of each part of the machine that a distribution fills.
func copyMachine(t *testing.T, root string) {
	t.Helper()
	var names strings.Builder
	for _, dir := range []string{
		"bin", "sbin", "lib", "lib64", "etc", "usr/bin", "usr/sbin", "usr/lib", "usr/libexec", "usr/share", "usr/share/doc",
		"var/lib/dpkg", "var/spool",
	} {
		some(&names, dir)
	}
	must(t, os.Mkdir(root, 0o755))
	cmd := exec.CommandContext(t.Context(), "rsync", "-aHAX", "--numeric-ids", "--from0", "--files-from=-", "/", root)
	cmd.Stdin = strings.NewReader(names.String())
	const vanished = 24 // files that have gone since they were listed
	if out, err := cmd.CombinedOutput(); err != nil && cmd.ProcessState.ExitCode() != vanished {
		t.Fatalf("copy of this machine: %v\n%s", err, out)
	}
}

// some lists what is in a directory of the machine, up to so many entries and
// bytes.
func some(names *strings.Builder, dir string) {
	entries, bytes := 800, int64(8<<20)
	_ = filepath.WalkDir("/"+dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil // gone, or nothing that can be read: there is enough else
		}
		if info, err := d.Info(); err == nil && info.Size() <= bytes/2 {
			entries, bytes = entries-1, bytes-info.Size()
			names.WriteString(path + "\x00")
		}
		if entries <= 0 || bytes < 64<<10 {
			return fs.SkipAll
		}
		return nil
	})
}

// decorate adds what distributions lack: to their own files, and beside them.
func decorate(t *testing.T, root string) {
	t.Helper()
	at := func(name string) string { return filepath.Join(root, "extra", name) }
	must(t, os.Mkdir(at(""), 0o750), os.Mkdir(at("generated"), 0o755))
	must(t, treecheck.Generate(at("generated"), 1, treecheck.Options{Entries: 300, Crowd: 1000, Flags: true, Large: true}))
	owned := regularFiles(t, root+"/etc", 6)
	must(t, os.Link(owned[0], at("linked")), os.Link(owned[0], owned[1]+".linked"),
		unix.Setxattr(owned[1], "security.capability", treecheck.Capability(0), 0),
		unix.Setxattr(owned[2], "security.capability", treecheck.Capability(100000), 0),
		unix.Setxattr(owned[3], "system.posix_acl_access", treecheck.ACL(100033, 6), 0),
		unix.Setxattr(root+"/etc", "system.posix_acl_default", treecheck.ACL(1<<31, 5), 0),
		unix.Setxattr(owned[4], "user.\xff", []byte{0}, 0), unix.Setxattr(owned[4], "trusted.t", nil, 0))
	must(t, unix.Mknod(at("socket"), unix.S_IFSOCK|0o777, 0), unix.Mknod(at("fifo"), unix.S_IFIFO|0o622, 0),
		unix.Mknod(at("character"), unix.S_IFCHR|0o620, int(unix.Mkdev(511, 1<<20-1))),
		unix.Mknod(at("block"), unix.S_IFBLK|0o660, int(unix.Mkdev(8, 1))),
		os.WriteFile(at("not \xff\xfe UTF-8\n"), nil, 0o4711), os.Symlink("\xff/../nowhere", at("dangling")),
		os.MkdirAll(at(strings.Repeat(strings.Repeat("d", 255)+"/", 12)), 0o755)) // rsync ends at PATH_MAX
	must(t, sparse(at("sparse")), sparse(owned[5]+".sparse"))
	for name, nsec := range map[string]int64{"dangling": 1, "socket": 999999999, "block": 123456789, "": 987654321} {
		must(t, unix.UtimesNanoAt(unix.AT_FDCWD, at(name), []unix.Timespec{{Sec: -5, Nsec: nsec}, {Sec: 1 << 33, Nsec: nsec}}, unix.AT_SYMLINK_NOFOLLOW))
	}
	command(t, "chattr", "+i", owned[5])
	command(t, "chattr", "+a", owned[5]+".sparse")
}

// regularFiles lists files below a directory, of which there must be so many.
func regularFiles(t *testing.T, dir string, n int) (paths []string) {
	t.Helper()
	must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			paths = append(paths, path)
		}
		return err
	}))
	if len(paths) < n {
		t.Fatalf("%s has %d files", dir, len(paths))
	}
	return paths[:n]
}

// sparse makes a file of 64 MiB with data at its start, before its middle and at
// its end.
func sparse(path string) error {
	const size = 64 << 20
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	for _, offset := range []int64{0, size/2 - 3, size - 1} {
		if _, err := f.WriteAt([]byte("x"), offset); err != nil {
			return err
		}
	}
	return nil
}

// passage is a source and a target of file passes with a pipe between.
type passage struct {
	t        *testing.T
	src, dst string
	source   *files.Source
	target   *files.Target
	out, in  *transport.Conn
	r        *io.PipeReader
	w        *io.PipeWriter
	passes   int
	log      []string
}

func newPassage(t *testing.T, src, dst string) *passage {
	t.Helper()
	p := &passage{t: t, src: src, dst: dst}
	p.r, p.w = io.Pipe()
	p.out, p.in = transport.NewConn(nil, p.w), transport.NewConn(p.r, nil)
	var err error
	p.source, err = files.NewSource(src, files.SourceOptions{})
	must(t, err)
	t.Cleanup(func() { must(t, p.source.Close()) })
	p.target, err = files.NewTarget(dst)
	must(t, err)
	t.Cleanup(func() { must(t, p.target.Close()) })
	return p
}

// pass moves what has changed.
func (p *passage) pass(o files.PassOptions) {
	p.t.Helper()
	p.passes++
	o.Pass = p.passes
	received := make(chan error, 1)
	go func() {
		err := p.receive()
		if err != nil {
			p.r.CloseWithError(err)
		}
		received <- err
	}()
	stats, err := p.source.Pass(p.t.Context(), p.out, o)
	if err = errors.Join(err, p.out.Flush()); err != nil {
		p.w.CloseWithError(err)
	}
	must(p.t, err, <-received, p.target.Finish())
	p.t.Logf("pass %d: %+v", p.passes, stats)
	if tracked := o.Pass > 1 && !o.All && p.source.Watched() == nil; stats.Sent == 0 || stats.Tracked != tracked {
		p.t.Errorf("pass %d: %+v, want tracked %v (%v)", p.passes, stats, tracked, p.source.Watched())
	}
}

func (p *passage) receive() error {
	typ, first, err := p.in.ReadFrame()
	if err == nil && typ != transport.TypeFilesBegin {
		err = fmt.Errorf("frame %v begins the pass", typ)
	}
	if err != nil {
		return err
	}
	_, err = p.target.Receive(p.t.Context(), p.in, first)
	return err
}

// mutate changes the source's tree at random.
func (p *passage) mutate(o treecheck.Options) {
	p.t.Helper()
	log, err := treecheck.Mutate(p.src, uint64(p.passes), 300, o)
	must(p.t, err)
	p.log = append(p.log, log...)
}

// compare lets both checkers compare, all but some fields.
func (p *passage) compare(except ...string) {
	p.t.Helper()
	if err := treesDiffer(p.src, p.dst, except...); err != nil {
		p.t.Fatalf("after pass %d: %v\nchanges were\n%s", p.passes, err, strings.Join(p.log, "\n"))
	}
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}
