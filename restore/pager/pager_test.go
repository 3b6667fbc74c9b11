package pager_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vzkit/vzkit/freeze"
	"github.com/vzkit/vzkit/internal/mountns"
	"github.com/vzkit/vzkit/lifecycle/cgroup"
	"github.com/vzkit/vzkit/restore/memory"
	"github.com/vzkit/vzkit/restore/pager"
)

// freezers makes an empty group in each hierarchy that can freeze.
func freezers(t testing.TB) map[string]freeze.Freezer {
	t.Helper()
	hs, err := cgroup.Hierarchies()
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]freeze.Freezer{}
	for _, h := range hs {
		if !h.Unified && !strings.Contains(","+h.Name+",", ",freezer,") {
			continue
		}
		dir := filepath.Join(h.Mount, fmt.Sprintf("vz-pager-test-%d", os.Getpid()))
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := os.Remove(dir); err != nil {
				t.Error(err)
			}
		})
		name := "v1"
		if h.Unified {
			name = "v2"
		}
		found[name] = freeze.Freezer{Dir: dir, Unified: h.Unified}
	}
	return found
}

func newStore(t testing.TB) *memory.Store {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("test", dir, "tmpfs", 0, "size=4g"); err != nil {
		t.Fatal(err)
	}
	s, err := memory.New(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(s.Close(), unix.Unmount(dir, 0)); err != nil {
			t.Error(err)
		}
	})
	return s
}

// subject is a process that is filled, and the group it is alone in.
type subject struct {
	t       testing.TB
	freezer freeze.Freezer
	store   *memory.Store
	cmd     *exec.Cmd
	in      io.Writer
	out     *bufio.Reader
	region  uint64
	space   uint64
}

func start(t testing.TB, f freeze.Freezer, store *memory.Store, space uint64, attr *syscall.SysProcAttr) *subject {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), asChild+"=1", "GODEBUG=asyncpreemptoff=1", "GOGC=off")
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = attr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s := &subject{t: t, freezer: f, store: store, cmd: cmd, in: in, out: bufio.NewReader(out), space: space}
	t.Cleanup(func() {
		if err := errors.Join(f.Thaw(), cmd.Process.Kill()); err != nil && !errors.Is(err, os.ErrProcessDone) {
			t.Error(err)
		}
		_ = cmd.Wait()
	})
	line := s.read()
	if s.region, err = strconv.ParseUint(line, 0, 64); err != nil {
		t.Fatalf("child says %q", line)
	}
	if err := os.WriteFile(filepath.Join(f.Dir, "cgroup.procs"), []byte(strconv.Itoa(cmd.Process.Pid)), 0); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *subject) read() string {
	s.t.Helper()
	line, err := s.out.ReadString('\n')
	if err != nil {
		s.t.Fatalf("child says %q, %v", line, err)
	}
	return strings.TrimSuffix(line, "\n")
}

func (s *subject) begin(command string) {
	s.t.Helper()
	if _, err := fmt.Fprintln(s.in, command); err != nil {
		s.t.Fatal(err)
	}
}

func (s *subject) end() {
	s.t.Helper()
	if line := s.read(); line != "ok" {
		s.t.Error(line)
	}
}

func (s *subject) do(command string) {
	s.t.Helper()
	s.begin(command)
	s.end()
}

// fillStore puts the content in two rounds.
func (s *subject) fillStore() {
	s.t.Helper()
	put := func(n int) {
		data := content(n)
		if contentOf(n) == 0 {
			data = nil
		}
		if err := s.store.Put(s.space, s.region+uint64(n)*pageSize, 1, data); err != nil {
			s.t.Fatal(err)
		}
	}
	for n := range regionPages {
		if n%10 != 0 {
			put(n)
		}
	}
	s.store.NextRound()
	for n := 0; n < regionPages; n += 10 {
		put(n)
	}
}

func (s *subject) process() pager.Process {
	return pager.Process{PID: s.cmd.Process.Pid, Space: s.space, Ranges: []pager.Range{{Start: s.region, End: s.region + regionPages*pageSize}}}
}

func (s *subject) freeze() {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 10*time.Second)
	defer cancel()
	if err := s.freezer.Freeze(ctx); err != nil {
		s.t.Fatal(err)
	}
}

func (s *subject) thaw() {
	s.t.Helper()
	if err := s.freezer.Thaw(); err != nil {
		s.t.Fatal(err)
	}
}

func (s *subject) attach(c pager.Config) *pager.Pager {
	s.t.Helper()
	s.freeze()
	c.Store, c.Freezer = s.store, s.freezer
	if c.Processes == nil {
		c.Processes = []pager.Process{s.process()}
	}
	p, err := pager.Attach(s.t.Context(), c)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		if err := p.Close(); err != nil {
			s.t.Error(err)
		}
	})
	if frozen, err := s.freezer.Frozen(); err != nil || !frozen {
		s.t.Errorf("frozen after attach: %v, %v", frozen, err)
	}
	return p
}

// fill fills and checks that all is released.
func (s *subject) fill(p *pager.Pager) {
	s.t.Helper()
	var done, total uint64
	err := p.Fill(s.t.Context(), func(d, t uint64) { done, total = d, t })
	if err != nil {
		s.t.Error(err)
	}
	if s.store.Used() != 0 {
		s.t.Errorf("%d bytes left in the store", s.store.Used())
	}
	if done > total || total == 0 {
		s.t.Errorf("filled %d of %d bytes", done, total)
	}
}

func subjects(t *testing.T, test func(t *testing.T, s *subject)) {
	for name, f := range freezers(t) {
		t.Run(name, func(t *testing.T) {
			s := start(t, f, newStore(t), 1, nil)
			s.fillStore()
			test(t, s)
		})
	}
}

func TestFillThenRun(t *testing.T) {
	subjects(t, func(t *testing.T, s *subject) {
		p := s.attach(pager.Config{})
		s.fill(p) // while frozen
		s.thaw()
		s.do("verify")
		s.do("clean")
	})
}

func TestFaultsOnly(t *testing.T) {
	subjects(t, func(t *testing.T, s *subject) {
		p := s.attach(pager.Config{})
		s.thaw()
		s.do("verify")
		s.fill(p)
		s.do("verify")
		s.do("clean")
	})
}

func TestPrefill(t *testing.T) {
	subjects(t, func(t *testing.T, s *subject) {
		before := s.store.Used()
		p := s.attach(pager.Config{Prefill: 1 << 20})
		if put := before - s.store.Used(); put == 0 || put > 1<<20 {
			t.Errorf("%d bytes prefilled", put)
		}
		s.thaw()
		s.fill(p)
		s.do("verify")
	})
}

// What a process already has, the store's content replaces.
func TestPagesThere(t *testing.T) {
	subjects(t, func(t *testing.T, s *subject) {
		s.do("touch")
		p := s.attach(pager.Config{})
		s.thaw()
		s.do("verify")
		s.fill(p)
	})
}

// Everything that a process can do to its memory, during the fill.
func TestDuringFill(t *testing.T) {
	for _, command := range []string{"verify", "threads", "fork", "forkstorm", "move", "drop", "unmap", "kernel"} {
		t.Run(command, func(t *testing.T) {
			subjects(t, func(t *testing.T, s *subject) {
				p := s.attach(pager.Config{})
				s.begin(command)
				s.thaw()
				s.fill(p)
				s.end()
				s.do("clean")
			})
		})
	}
}

// And before it, by faults alone.
func TestBeforeFill(t *testing.T) {
	for _, command := range []string{"threads", "fork", "move", "drop", "unmap", "kernel"} {
		t.Run(command, func(t *testing.T) {
			subjects(t, func(t *testing.T, s *subject) {
				p := s.attach(pager.Config{})
				s.thaw()
				s.do(command)
				s.fill(p)
				s.do("clean")
			})
		})
	}
}

// In a user namespace a process may not have a userfaultfd of its own making.
func TestUserNamespace(t *testing.T) {
	if mountns.Chrooted() {
		t.Skip("no user namespaces in a chroot")
	}
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 100000, Size: 1}}
	for name, f := range freezers(t) {
		t.Run(name, func(t *testing.T) {
			s := start(t, f, newStore(t), 1, &syscall.SysProcAttr{
				Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNET, UidMappings: ids, GidMappings: ids,
			})
			s.fillStore()
			p := s.attach(pager.Config{})
			s.begin("kernel")
			s.thaw()
			s.fill(p)
			s.end()
			s.do("clean")
		})
	}
}

func TestManyProcesses(t *testing.T) {
	for name, f := range freezers(t) {
		t.Run(name, func(t *testing.T) {
			store := newStore(t)
			var all []*subject
			var c pager.Config
			for n := range 4 {
				s := start(t, f, store, uint64(n+1), nil)
				s.fillStore()
				all = append(all, s)
				c.Processes = append(c.Processes, s.process())
			}
			p := all[0].attach(c)
			for _, s := range all {
				s.begin("fork")
			}
			all[0].thaw()
			all[0].fill(p)
			for _, s := range all {
				s.end()
				s.do("clean")
			}
		})
	}
}

// A process that is killed, or has ended already, is no obstacle.
func TestKilled(t *testing.T) {
	subjects(t, func(t *testing.T, s *subject) {
		p := s.attach(pager.Config{})
		if err := s.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		s.thaw()
		if err := p.Fill(t.Context(), nil); err != nil {
			t.Error(err)
		}
	})
}

// A guard that was started before is used, and ends with its pager.
func TestGuard(t *testing.T) {
	subjects(t, func(t *testing.T, s *subject) {
		g, err := pager.StartGuard(s.freezer)
		if err != nil {
			t.Fatal(err)
		}
		p := s.attach(pager.Config{Guard: g})
		if guards(t, s.freezer) != 1 {
			t.Errorf("%d guards", guards(t, s.freezer))
		}
		s.thaw()
		s.fill(p)
		s.do("verify")
		s.do("clean")
		if err := g.Close(); err != nil || guards(t, s.freezer) != 0 {
			t.Errorf("%d guards, %v", guards(t, s.freezer), err)
		}
	})
}

// An attach that is given up leaves a frozen process that can be killed.
func TestClose(t *testing.T) {
	subjects(t, func(t *testing.T, s *subject) {
		p := s.attach(pager.Config{})
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
}
