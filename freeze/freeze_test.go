package freeze_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vzkit/vzkit/freeze"
	"github.com/vzkit/vzkit/lifecycle/cgroup"
)

// groupName is a cgroup that nothing else on a machine has.
var groupName = fmt.Sprintf("vz-freeze-test-%d", os.Getpid())

// asCounter makes the test binary a process that counts in shared memory, the
// file of that name, and says so once.
const asCounter = "FREEZE_TEST_AS_COUNTER"

func TestMain(m *testing.M) {
	if path := os.Getenv(asCounter); path != "" {
		count(path)
	}
	os.Exit(m.Run())
}

func count(path string) {
	counter, err := mapFile(path)
	if err != nil {
		os.Stderr.WriteString(err.Error() + "\n")
		os.Exit(1)
	}
	for n := uint64(1); ; n++ {
		binary.NativeEndian.PutUint64(counter, n)
		if n == 1 {
			os.Stdout.WriteString("counting\n")
		}
	}
}

func mapFile(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return unix.Mmap(int(f.Fd()), 0, 8, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
}

// freezers makes an empty group in each hierarchy of the machine that can
// freeze: the v1 freezer and v2.
func freezers(t *testing.T) map[string]freeze.Freezer {
	t.Helper()
	hs, err := cgroup.Hierarchies()
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]freeze.Freezer{}
	for _, h := range hs {
		if h.Unified || strings.Contains(","+h.Name+",", ",freezer,") {
			dir := filepath.Join(h.Mount, groupName)
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
	}
	return found
}

// counter is a process of a freezer's group that counts.
type counter struct {
	t   *testing.T
	pid int
	mem []byte
}

func startCounter(t *testing.T, f freeze.Freezer) *counter {
	t.Helper()
	path := filepath.Join(t.TempDir(), "counter")
	if err := os.WriteFile(path, make([]byte, 8), 0o600); err != nil {
		t.Fatal(err)
	}
	mem, err := mapFile(path)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), asCounter+"="+path)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(f.Thaw(), cmd.Process.Kill()); err != nil {
			t.Error(err)
		}
		_ = cmd.Wait()
		_ = unix.Munmap(mem)
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "counting\n" {
		t.Fatalf("counter says %q, %v", line, err)
	}
	join(t, f, cmd.Process.Pid)
	return &counter{t, cmd.Process.Pid, mem}
}

func join(t *testing.T, f freeze.Freezer, pid int) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(f.Dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0); err != nil {
		t.Fatal(err)
	}
}

// eventually waits for what the kernel does in its own time.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("still waiting: %s", what)
		}
	}
}

func (c *counter) value() uint64 { return binary.NativeEndian.Uint64(c.mem) }

// wantMoves waits until the process has counted on.
func (c *counter) wantMoves() {
	c.t.Helper()
	from := c.value()
	eventually(c.t, "the counter to move", func() bool { return c.value() != from })
}

// wantStill checks that the process stands still.
func (c *counter) wantStill() {
	c.t.Helper()
	from := c.value()
	time.Sleep(20 * time.Millisecond)
	if to := c.value(); to != from {
		c.t.Errorf("counter went from %d to %d", from, to)
	}
}

func wantFrozen(t *testing.T, f freeze.Freezer, want bool) {
	t.Helper()
	if got, err := f.Frozen(); err != nil || got != want {
		t.Errorf("frozen %v, %v, want %v", got, err, want)
	}
}

func TestFreezeAndThaw(t *testing.T) {
	for name, f := range freezers(t) {
		t.Run(name, func(t *testing.T) {
			c := startCounter(t, f)
			wantFrozen(t, f, false)
			for range 3 {
				c.wantMoves()
				for range 2 { // freezing twice is fine
					if err := f.Freeze(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
				wantFrozen(t, f, true)
				c.wantStill()
				for range 2 {
					if err := f.Thaw(); err != nil {
						t.Fatal(err)
					}
				}
				wantFrozen(t, f, false)
			}
			c.wantMoves()
		})
	}
}

func TestFreezeReachesGroupsBelow(t *testing.T) {
	for name, f := range freezers(t) {
		t.Run(name, func(t *testing.T) {
			below := freeze.Freezer{Dir: filepath.Join(f.Dir, "below"), Unified: f.Unified}
			if err := os.Mkdir(below.Dir, 0o755); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := os.Remove(below.Dir); err != nil {
					t.Error(err)
				}
			})
			c := startCounter(t, below)
			t.Cleanup(func() { _ = f.Thaw() })
			if err := f.Freeze(t.Context()); err != nil {
				t.Fatal(err)
			}
			c.wantStill()
			if err := f.Thaw(); err != nil {
				t.Fatal(err)
			}
			c.wantMoves()
		})
	}
}

func TestFreezeEmptyGroup(t *testing.T) {
	for name, f := range freezers(t) {
		if err := errors.Join(f.Freeze(t.Context()), f.Thaw()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A process that joins a marked group stands still from then on.
func TestMark(t *testing.T) {
	for name, f := range freezers(t) {
		t.Run(name, func(t *testing.T) {
			c := startCounter(t, f)
			if err := f.Mark(); err != nil {
				t.Fatal(err)
			}
			if err := f.Freeze(t.Context()); err != nil { // which waits
				t.Fatal(err)
			}
			c.wantStill()
			if err := f.Thaw(); err != nil {
				t.Fatal(err)
			}
			c.wantMoves()
		})
	}
}

// startStuck puts a process into the group that no freezer can stop: it waits,
// in uninterruptible sleep, for the lock on a directory. A process outside the
// group holds that, and waits for a FUSE file system that never answers.
func startStuck(t *testing.T, f freeze.Freezer) {
	t.Helper()
	server, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	options := fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", server.Fd())
	if err := unix.Mount("stuck", dir, "fuse", 0, options); err != nil {
		t.Fatal(err)
	}
	var stuck []*exec.Cmd
	t.Cleanup(func() {
		if err := errors.Join(unix.Unmount(dir, unix.MNT_DETACH), server.Close()); err != nil { // which lets go of both
			t.Error(err)
		}
		for _, cmd := range stuck {
			_ = cmd.Wait()
		}
	})
	for _, name := range []string{"holder", "waiter"} {
		cmd := exec.Command("mkdir", filepath.Join(dir, name))
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		stuck = append(stuck, cmd)
		eventually(t, name+" to hang", func() bool {
			stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", cmd.Process.Pid))
			return err == nil && strings.Contains(string(stat), " (mkdir) D ")
		})
	}
	join(t, f, stuck[1].Process.Pid)
}

func TestFreezeGivesUp(t *testing.T) {
	for name, f := range freezers(t) {
		t.Run(name, func(t *testing.T) {
			c := startCounter(t, f)
			startStuck(t, f)
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			if err := f.Freeze(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Fatalf("freeze: %v", err)
			}
			wantFrozen(t, f, false)
			c.wantMoves()
		})
	}
}

func TestFreezeMissingGroup(t *testing.T) {
	for _, unified := range []bool{false, true} {
		f := freeze.Freezer{Dir: filepath.Join(t.TempDir(), "none"), Unified: unified}
		for name, do := range map[string]func() error{
			"freeze": func() error { return f.Freeze(t.Context()) }, "mark": f.Mark, "thaw": f.Thaw,
			"frozen": func() error { _, err := f.Frozen(); return err },
		} {
			if err := do(); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s of a missing group: %v", name, err)
			}
		}
	}
}
