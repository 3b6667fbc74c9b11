package dump

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vzkit/vzkit/dump/track"
	"github.com/vzkit/vzkit/freeze"
	"github.com/vzkit/vzkit/internal/criu"
	"github.com/vzkit/vzkit/internal/mountns"
	"github.com/vzkit/vzkit/lifecycle/cgroup"
)

// container is a process in namespaces of its own, and in a freezer's group.
type container struct {
	t       testing.TB
	root    string
	init    int
	freezer freeze.Freezer
}

// buildHog builds the program that is dumped. It is static: the test binary
// itself is not, with the race detector.
var buildHog = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "hog")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	cmd := exec.Command("go", "build", "-o", dir+"/hog", "./testdata/hog")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build: %w: %s", err, out)
	}
	return os.ReadFile(dir + "/hog")
})

// setUp makes the root of a container: a directory with /proc and one program.
const setUp = `
mount --make-rprivate /
mount --bind "$1" "$1"
cd "$1"
mount -t proc proc proc
exec ./hog /ready "$2" "$3" $4`

// start starts a container with memory in MiB.
func start(t testing.TB, private, shared int, options string) *container {
	t.Helper()
	needNamespaces(t)
	program, err := buildHog()
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	must(t, os.WriteFile(root+"/hog", program, 0o755))
	must(t, os.WriteFile(root+"/null", nil, 0o600))
	must(t, os.WriteFile(root+"/null2", make([]byte, 4096), 0o600))
	must(t, os.Mkdir(root+"/proc", 0o755))
	cmd := exec.Command("sh", "-euc", setUp, "sh", root, strconv.Itoa(private), strconv.Itoa(shared), options)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setsid:     true,
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWNET,
	}
	// What the test was started with is not the container's business.
	must(t, unix.CloseRange(3, ^uint(0), unix.CLOSE_RANGE_CLOEXEC))
	c := &container{t: t, root: root, freezer: group(t)}
	must(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = c.freezer.Thaw() // else it cannot end
		_ = cmd.Wait()
	})
	c.init = cmd.Process.Pid
	must(t, os.WriteFile(c.freezer.Dir+"/cgroup.procs", []byte(strconv.Itoa(c.init)), 0))
	c.ready()
	return c
}

// ready waits until the container is.
func (c *container) ready() {
	c.t.Helper()
	for deadline := time.Now().Add(patience); os.Remove(c.root+"/ready") != nil; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			c.t.Fatal("container is not ready")
		}
	}
}

// signal has the container do something.
func (c *container) signal(s syscall.Signal) {
	c.t.Helper()
	must(c.t, syscall.Kill(c.init, s))
	c.ready()
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// needNamespaces skips where CRIU does not work: without root, and in a chroot
// whose root is no mount point.
func needNamespaces(t testing.TB) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	if mountns.Chrooted() {
		t.Skip("CRIU does not work in a chroot")
	}
}

// group makes a group of a freezer of either kind.
func group(t testing.TB) freeze.Freezer {
	t.Helper()
	hs, err := cgroup.Hierarchies()
	if err != nil {
		t.Skip(err)
	}
	for _, h := range hs {
		if h.Name != "freezer" && !h.Unified {
			continue
		}
		f := freeze.Freezer{Dir: filepath.Join(h.Mount, fmt.Sprintf("vzkit-dump-%d", os.Getpid())), Unified: h.Unified}
		must(t, os.Mkdir(f.Dir, 0o755))
		t.Cleanup(func() {
			for range 1000 { // until the last process has gone
				if unix.Rmdir(f.Dir) == nil {
					return
				}
				time.Sleep(time.Millisecond)
			}
			t.Errorf("group %q remains", f.Dir)
		})
		return f
	}
	t.Skip("no freezer")
	return freeze.Freezer{}
}

func (c *container) freeze() {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	must(c.t, c.freezer.Freeze(ctx))
}

func (c *container) pids() (pids []int) {
	c.t.Helper()
	text, err := os.ReadFile(c.freezer.Dir + "/cgroup.procs")
	must(c.t, err)
	for _, f := range strings.Fields(string(text)) {
		pid, err := strconv.Atoi(f)
		must(c.t, err)
		pids = append(pids, pid)
	}
	return pids
}

// layout has all memory of all processes that a tracker could take.
func (c *container) layout() *track.Layout {
	l := &track.Layout{}
	for _, pid := range c.pids() {
		p := track.Process{PID: pid}
		for _, m := range mappings(c.t, pid) {
			switch {
			case m.shared && m.dev == "00:01":
				l.Objects = append(l.Objects, track.Object{Inode: m.inode, Size: m.End - m.Start})
			case !m.shared && !strings.HasPrefix(m.name, "[v"):
				p.Ranges = append(p.Ranges, m.Range)
			}
		}
		l.Processes = append(l.Processes, p)
	}
	return l
}

type mapping struct {
	track.Range
	shared    bool
	dev, name string
	inode     uint64
}

func mappings(t testing.TB, pid int) (all []mapping) {
	t.Helper()
	f, err := os.Open(fmt.Sprintf("/proc/%d/maps", pid))
	must(t, err)
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var m mapping
		var access string
		var offset uint64
		if n, _ := fmt.Sscanf(lines.Text(), "%x-%x %s %x %s %d %s", &m.Start, &m.End, &access, &offset, &m.dev, &m.inode, &m.name); n < 6 {
			t.Fatalf("mapping %q", lines.Text())
		}
		m.shared = access[3] == 's'
		all = append(all, m)
	}
	return all
}

// config is for a dump of the container into a sink that remembers it.
func (c *container) config(mode Mode) (Config, *took) {
	c.t.Helper()
	path, err := criu.Find()
	must(c.t, err)
	s := &took{pages: map[Space]uint64{}, images: map[string]int{}}
	return Config{
		Criu: path, Init: c.init, Freeze: c.freezer.Dir, Dir: c.t.TempDir(), Mode: mode, Sink: s,
		Then: func(Stats) error { return nil },
	}, s
}

// took is a sink that keeps no content.
type took struct {
	runs   []Run
	pages  map[Space]uint64
	images map[string]int // bytes
}

func (s *took) Pages(r Run) error {
	if r.Data != nil {
		s.pages[r.Space] += uint64(r.Count)
	}
	r.Data = nil
	s.runs = append(s.runs, r)
	return nil
}

func (s *took) Image(name string, data []byte, _ bool) error {
	s.images[name] += len(data)
	return nil
}
