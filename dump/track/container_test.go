package track_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vzkit/vzkit/dump/track"
)

// container is a cgroup that can be frozen, of processes in one pid namespace.
type container struct {
	t    *testing.T
	dir  string
	init int
	ours []int // children of this process, to be reaped
}

func newContainer(t *testing.T) *container {
	t.Helper()
	root := "/sys/fs/cgroup"
	if _, err := os.Stat(root + "/cgroup.procs"); err != nil {
		root += "/unified"
	}
	c := &container{t: t, dir: fmt.Sprintf("%s/vzkit-track-%d-%d", root, os.Getpid(), time.Now().UnixNano())}
	if err := os.Mkdir(c.dir, 0o755); err != nil {
		t.Skipf("no cgroup to freeze: %v", err)
	}
	t.Cleanup(c.remove)
	c.init = c.start("init").pid
	return c
}

func (c *container) write(file, text string) {
	c.t.Helper()
	if err := os.WriteFile(filepath.Join(c.dir, file), []byte(text), 0); err != nil {
		c.t.Fatal(err)
	}
}

func (c *container) remove() {
	c.freeze(false)
	c.kill()
	_ = unix.Kill(c.init, unix.SIGKILL)
	_, _ = unix.Wait4(c.init, nil, 0, nil)
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		if err := os.Remove(c.dir); err == nil {
			return
		} else if time.Now().After(end) {
			c.t.Error(err)
			return
		}
	}
}

// kill ends all processes but the init. A process whose leader has ended does
// not mind cgroup.kill (Linux 6.18).
func (c *container) kill() {
	c.t.Helper()
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		all, err := c.pids()
		if err != nil || time.Now().After(end) {
			c.t.Fatalf("processes %d stay: %v", all, err)
		}
		left := slices.DeleteFunc(all, func(pid int) bool { return pid == c.init })
		for _, pid := range left {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		if len(left) == 0 {
			break
		}
	}
	for _, pid := range c.ours {
		_, _ = unix.Wait4(pid, nil, 0, nil)
	}
	c.ours = nil
}

func (c *container) freeze(frozen bool) {
	c.t.Helper()
	want := "0"
	if frozen {
		want = "1"
	}
	c.write("cgroup.freeze", want)
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(100 * time.Microsecond) {
		events, err := os.ReadFile(c.dir + "/cgroup.events")
		if err == nil && strings.Contains(string(events), "frozen "+want) {
			return
		}
		if time.Now().After(end) {
			c.t.Fatalf("container does not freeze: %s %v", events, err)
		}
	}
}

func (c *container) pids() (all []int, err error) {
	text, err := os.ReadFile(c.dir + "/cgroup.procs")
	for _, word := range strings.Fields(string(text)) {
		pid, err := strconv.Atoi(word)
		if err != nil {
			return nil, err
		}
		all = append(all, pid)
	}
	return all, err
}

// subject is a process in the container that does what it is told.
type subject struct {
	t         *testing.T
	pid, vpid int
	in        io.Writer
	out       *bufio.Scanner
}

// start starts this test binary in the container, with a mode (subject_test.go).
func (c *container) start(mode string) *subject {
	c.t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), asSubject+"="+mode, asSubject+"_CGROUP="+c.dir, "GOTRACEBACK=all")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		c.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		c.t.Fatal(err)
	}
	if err := c.run(cmd); err != nil {
		c.t.Fatal(err)
	}
	if c.init != 0 {
		c.ours = append(c.ours, cmd.Process.Pid)
	}
	if err := out.(*os.File).SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		c.t.Fatal(err)
	}
	s := &subject{t: c.t, pid: cmd.Process.Pid, in: in, out: bufio.NewScanner(out)}
	s.ready()
	return s
}

// run starts a command in the container's pid namespace. The first one makes it.
func (c *container) run(cmd *exec.Cmd) error {
	if c.init == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID}
		return cmd.Start()
	}
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/pid", c.init))
	if err != nil {
		return err
	}
	defer ns.Close()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread's children would go there
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWPID); err != nil {
			done <- err
			return
		}
		done <- cmd.Start()
	}()
	return <-done
}

// ready waits until a subject has begun.
func (s *subject) ready() {
	s.t.Helper()
	if !s.out.Scan() {
		s.t.Fatalf("subject does not begin: %v", s.out.Err())
	}
	if _, err := fmt.Sscanf(s.out.Text(), "ready %d", &s.vpid); err != nil {
		s.t.Fatalf("subject said %q: %v", s.out.Text(), err)
	}
}

func (s *subject) want(word string) {
	s.t.Helper()
	if !s.out.Scan() || s.out.Text() != word {
		s.t.Fatalf("subject said %q, %v, not %q", s.out.Text(), s.out.Err(), word)
	}
}

// do has the subject do a step.
func (s *subject) do(step string) {
	s.t.Helper()
	fmt.Fprintln(s.in, step)
	s.want("ok")
}

// recorder is a sink that keeps what was passed on.
type recorder struct {
	mu    sync.Mutex
	pages map[[2]uint64]*[track.PageSize]byte
	own   map[[2]uint64]bool
	drop  func(track.Run) bool // what gets lost
	lost  int
	runs  int
}

func newRecorder() *recorder {
	return &recorder{pages: map[[2]uint64]*[track.PageSize]byte{}, own: map[[2]uint64]bool{}}
}

func (r *recorder) Pages(run track.Run) error {
	if !r.mu.TryLock() {
		return fmt.Errorf("two calls at one time")
	}
	defer r.mu.Unlock()
	r.runs++
	if run.Count == 0 || run.Data != nil && (run.Count > 128 || len(run.Data) != int(run.Count)*track.PageSize) {
		return fmt.Errorf("run of %d pages with %d bytes", run.Count, len(run.Data))
	}
	if r.drop != nil && r.drop(run) {
		r.lost++
		return nil
	}
	if run.Data == nil && int(run.Count) > len(r.pages) {
		for k := range r.pages {
			if k[0] == run.Space && k[1]-run.Address < uint64(run.Count)*track.PageSize {
				delete(r.pages, k)
			}
		}
		return nil
	}
	for i := range uint64(run.Count) {
		key := [2]uint64{run.Space, run.Address + i*track.PageSize}
		if run.Data == nil {
			delete(r.pages, key)
			continue
		}
		page := r.pages[key]
		if page == nil {
			page = new([track.PageSize]byte)
			r.pages[key] = page
		}
		copy(page[:], run.Data[i*track.PageSize:])
		r.own[key] = run.Own
	}
	return nil
}

func (r *recorder) read(space, address uint64, page []byte) error {
	if p := r.pages[[2]uint64{space, address}]; p != nil {
		copy(page, p[:])
	} else {
		clear(page)
	}
	return nil
}

// strays counts the pages that were passed on and not taken back, of memory
// that is not in a layout.
func (r *recorder) strays(layout *track.Layout) (pages int) {
	for key := range r.pages {
		covered := slices.ContainsFunc(layout.Objects, func(o track.Object) bool { return o.Space == key[0] && key[1] < o.Size })
		for _, p := range layout.Processes {
			covered = covered || p.Space == key[0] &&
				slices.ContainsFunc(p.Ranges, func(r track.Range) bool { return r.Start <= key[1] && key[1] < r.End })
		}
		if !covered {
			pages++
		}
	}
	return pages
}

// open starts a tracker of the container, or skips where the kernel has none.
func (c *container) open(kind string) track.Tracker {
	c.t.Helper()
	tr, why, err := track.Open(kind, track.Options{Pids: c.pids})
	if err != nil && kind == track.SoftDirty {
		c.t.Skip(err)
	}
	if err != nil {
		c.t.Fatal(err)
	}
	if why != "" {
		c.t.Log(why)
	}
	c.t.Cleanup(func() {
		if err := tr.Close(); err != nil {
			c.t.Error(err)
		}
	})
	return tr
}

func round(t *testing.T, tr track.Tracker, r *recorder) track.Round {
	t.Helper()
	got, err := tr.Round(context.Background(), r)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// last freezes the container and takes the rest.
func (c *container) last(tr track.Tracker, r *recorder) (*track.Layout, track.Round) {
	c.t.Helper()
	c.freeze(true)
	layout, err := tr.Settle(context.Background(), r)
	if err != nil {
		c.t.Fatal(err)
	}
	rest, err := tr.Finish(context.Background(), r)
	if err != nil {
		c.t.Fatal(err)
	}
	return layout, rest
}
