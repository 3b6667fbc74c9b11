package procfs_test

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vzkit/vzkit/internal/procfs"
)

// asSleeper makes the test binary a child that waits for the end of its input.
const asSleeper = "PROCFS_TEST_AS_SLEEPER"

func TestMain(m *testing.M) {
	if os.Getenv(asSleeper) != "" {
		_, _ = os.Stdin.Read(make([]byte, 1))
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// child starts the test binary under another name; the returned function ends
// it, and leaves a zombie unless reap.
func child(t *testing.T, name string) (pid int, end func()) {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(exe, path); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path)
	cmd.Env = append(os.Environ(), asSleeper+"=1")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stdin.Close()
		_ = cmd.Wait()
	})
	return cmd.Process.Pid, func() { stdin.Close() }
}

func TestStartTime(t *testing.T) {
	first, err := procfs.StartTime(os.Getpid())
	if err != nil || first == 0 {
		t.Fatalf("own start time is %d, %v", first, err)
	}
	if again, _ := procfs.StartTime(os.Getpid()); again != first {
		t.Errorf("start time changed from %d to %d", first, again)
	}
	// A command name may look like the fields that follow it.
	for _, name := range []string{"plain", "a b", ") Z 0 (", "x) S 1 2 3"} {
		pid, _ := child(t, name)
		got, err := procfs.StartTime(pid)
		if err != nil || got < first {
			t.Errorf("%q started at %d, %v; its parent at %d", name, got, err, first)
		}
	}
}

func TestStartTimeOfTheDead(t *testing.T) {
	pid, end := child(t, "zombie")
	end()
	var info unix.Siginfo
	if err := unix.Waitid(unix.P_PID, pid, &info, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := procfs.StartTime(pid); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("start time of a zombie: %v", err)
	}
	for _, pid := range []int{0, -1, 1 << 30} {
		if _, err := procfs.StartTime(pid); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("start time of process %d: %v", pid, err)
		}
		if _, err := procfs.RSS(pid); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("memory of process %d: %v", pid, err)
		}
	}
}

func TestRSSGrows(t *testing.T) {
	const size = 64 << 20
	before, err := procfs.RSS(os.Getpid())
	if err != nil || before == 0 {
		t.Fatalf("own memory is %d, %v", before, err)
	}
	block := make([]byte, size)
	for i := 0; i < len(block); i += os.Getpagesize() {
		block[i] = 1
	}
	after, err := procfs.RSS(os.Getpid())
	runtime.KeepAlive(block)
	if err != nil || after < before+size/2 {
		t.Errorf("memory went from %d to %d with %d more, %v", before, after, size, err)
	}
}
