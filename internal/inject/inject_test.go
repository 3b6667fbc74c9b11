package inject_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vzkit/vzkit/internal/inject"
)

// victim is a process of the test that does one thing and counts.
type victim struct {
	t   *testing.T
	pid int
	mem []byte
	in  *os.File // what it reads, in some modes
}

func start(t *testing.T, mode string) *victim {
	t.Helper()
	path := filepath.Join(t.TempDir(), "counter")
	if err := os.WriteFile(path, make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	mem, err := mapFile(path)
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "GODEBUG=asyncpreemptoff=1", asVictim+"="+mode, counterFile+"="+path)
	cmd.Stderr, cmd.Stdin = os.Stderr, r
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	v := &victim{t: t, pid: cmd.Process.Pid, mem: mem, in: w}
	t.Cleanup(func() {
		v.wantMoves() // it lives and is well
		if err := errors.Join(cmd.Process.Kill(), w.Close()); err != nil {
			t.Error(err)
		}
		if err := cmd.Wait(); err == nil || err.Error() != "signal: killed" {
			t.Errorf("%s ends: %v", mode, err)
		}
		_ = unix.Munmap(mem)
	})
	v.wantMoves()
	return v
}

func (v *victim) value() uint64 { return binary.NativeEndian.Uint64(v.mem) }

// wantMoves waits until the process has counted on; it is fed meanwhile.
func (v *victim) wantMoves() {
	v.t.Helper()
	from := v.value()
	eventually(v.t, "the counter to move", func() bool {
		v.feed()
		return v.value() != from
	})
}

func (v *victim) feed() { _, _ = v.in.Write([]byte{1}) }

func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !done(); time.Sleep(100 * time.Microsecond) {
		if time.Now().After(end) {
			t.Fatalf("still waiting: %s", what)
		}
	}
}

// injectOnce runs two calls in a task and checks what they return.
func injectOnce(t *testing.T, v *victim, tid int) {
	t.Helper()
	task, err := inject.Stop(tid)
	if err != nil {
		t.Fatal(err)
	}
	if pid, err := task.Syscall(unix.SYS_GETPID); err != nil || int(pid) != v.pid {
		t.Errorf("getpid: %d, %v, want %d", pid, err, v.pid)
	}
	if _, err := task.Syscall(unix.SYS_CLOSE, ^uintptr(0)); err != unix.EBADF {
		t.Errorf("close of nothing: %v", err)
	}
	if err := task.Release(); err != nil {
		t.Fatal(err)
	}
}

func TestNothingNotices(t *testing.T) {
	modes := []string{"sleep", "read", "futex", "epoll", "busy", "poll"}
	if runtime.GOARCH == "arm64" { // where a stop is EINTR for epoll_wait
		modes = []string{"read", "futex", "busy", "poll"}
	}
	for _, mode := range modes {
		t.Run(mode, func(t *testing.T) {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			v := start(t, mode)
			for n := range 1000 {
				injectOnce(t, v, v.pid)
				if n%10 == 0 {
					v.feed()
				}
				if n%100 == 0 {
					v.wantMoves()
				}
			}
		})
	}
}

func TestSignalsAreNotLost(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	v := start(t, "signals")
	for range 500 {
		from := v.value()
		task, err := inject.Stop(v.pid)
		if err != nil {
			t.Fatal(err)
		}
		_, before := task.Syscall(unix.SYS_GETPID)
		killed := unix.Kill(v.pid, unix.SIGUSR1)
		_, after := task.Syscall(unix.SYS_GETPID)
		if err := errors.Join(before, killed, after, task.Release()); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the signal", func() bool { return v.value() > from })
	}
}

// SIGSTOP cannot be blocked, and must not be lost either.
func TestStopSignalMeanwhile(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	v := start(t, "busy")
	for range 50 {
		task, err := inject.Stop(v.pid)
		if err != nil {
			t.Fatal(err)
		}
		_, before := task.Syscall(unix.SYS_GETPID)
		killed := unix.Kill(v.pid, unix.SIGSTOP)
		_, after := task.Syscall(unix.SYS_GETPID)
		if err := errors.Join(before, killed, after, task.Release()); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the process to stop", func() bool { return state(t, v.pid) == "T" })
		if err := unix.Kill(v.pid, unix.SIGCONT); err != nil {
			t.Fatal(err)
		}
		v.wantMoves()
	}
}

func state(t *testing.T, tid int) string {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", tid))
	if err != nil {
		t.Fatal(err)
	}
	return string(stat[strings.LastIndexByte(string(stat), ')')+2])
}

func TestStoppedStaysStopped(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	v := start(t, "threads")
	if err := unix.Kill(v.pid, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the process to stop", func() bool { return state(t, v.pid) == "T" })
	from := v.value()
	for range 100 {
		injectOnce(t, v, v.pid)
		eventually(t, "the stop", func() bool { return state(t, v.pid) == "T" })
	}
	if to := v.value(); to != from {
		t.Errorf("counter went from %d to %d in a stopped process", from, to)
	}
	if err := unix.Kill(v.pid, unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
}

// The victim may not ask for its parent; its injected self may.
func TestSeccomp(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	v := start(t, "seccomp")
	for range 100 {
		task, err := inject.Stop(v.pid)
		if err != nil {
			t.Fatal(err)
		}
		if parent, err := task.Syscall(unix.SYS_GETPPID); err != nil || int(parent) != os.Getpid() {
			t.Fatalf("getppid: %d, %v, want %d", parent, err, os.Getpid())
		}
		if err := task.Release(); err != nil {
			t.Fatal(err)
		}
	}
	v.wantMoves() // and still may not, as it checks itself
}

func threads(t *testing.T, pid int) []int {
	t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		t.Fatal(err)
	}
	var tids []int
	for _, entry := range entries {
		tid, err := strconv.Atoi(entry.Name())
		if err != nil {
			t.Fatal(err)
		}
		tids = append(tids, tid)
	}
	return tids
}

func TestThreads(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	v := start(t, "threads")
	for range 50 {
		var tasks []*inject.Task
		for _, tid := range threads(t, v.pid) {
			task, err := inject.Seize(tid)
			if err != nil {
				t.Fatal(err)
			}
			tasks = append(tasks, task)
		}
		if len(tasks) < 4 {
			t.Fatalf("%d threads", len(tasks))
		}
		for _, task := range tasks {
			if err := task.Wait(); err != nil {
				t.Fatal(err)
			}
		}
		from := v.value()
		for _, task := range tasks {
			if tid, err := task.Syscall(unix.SYS_GETTID); err != nil || int(tid) != task.ID() {
				t.Errorf("gettid: %d, %v, want %d", tid, err, task.ID())
			}
		}
		if to := v.value(); to != from {
			t.Errorf("counter went from %d to %d while all threads stood still", from, to)
		}
		for _, task := range tasks {
			if err := task.Release(); err != nil {
				t.Fatal(err)
			}
		}
		v.wantMoves()
	}
}

func TestMemory(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	v := start(t, "busy")
	task, err := inject.Stop(v.pid)
	if err != nil {
		t.Fatal(err)
	}
	var at uintptr
	before, during, after := make([]byte, 390), make([]byte, 390), make([]byte, 390)
	err = task.Scratch(func(address uintptr) error {
		at = address
		old := task.Read(address, before)
		_, err := task.Syscall(unix.SYS_UNAME, address)
		return errors.Join(old, err, task.Read(address, during))
	})
	if err := errors.Join(err, task.Read(at, after), task.Release()); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(string(during), "Linux\x00") {
		t.Errorf("uname wrote %q", during[:16])
	}
	if string(before) != string(after) {
		t.Error("the memory is not what it was")
	}
}

func TestGone(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := exec.Command("true")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the zombie", func() bool { return state(t, cmd.Process.Pid) == "Z" })
	if _, err := inject.Stop(cmd.Process.Pid); !errors.Is(err, inject.ErrGone) {
		t.Errorf("zombie: %v", err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if _, err := inject.Stop(cmd.Process.Pid); !errors.Is(err, inject.ErrGone) {
		t.Errorf("no task: %v", err)
	}
}

// A task that is killed while it is held is gone for every call.
func TestKilled(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	task, err := inject.Stop(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := task.Syscall(unix.SYS_GETPID); err != nil {
		t.Error(err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if _, err := task.Syscall(unix.SYS_GETPID); !errors.Is(err, inject.ErrGone) {
		t.Errorf("system call in a killed task: %v", err)
	}
	if err := task.Release(); err != nil {
		t.Errorf("release a killed task: %v", err)
	}
	_ = cmd.Wait()
}
