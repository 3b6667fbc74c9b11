package lab_test

import (
	"runtime"
	"syscall"
	"testing"
	"time"
)

// A command outlives the thread that began it.
func TestCommandOutlivesThread(t *testing.T) {
	l := up(t, 1)
	cmd := host(t, l, "alpha").Command(t.Context(), "sleep", "100")
	begun := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		begun <- cmd.Start()
	}()
	if err := <-begun; err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		t.Errorf("the command ended with its thread: %v", err)
	case <-time.After(time.Second):
		_ = cmd.Process.Kill()
		<-ended
	}
}

// A command ends with the process that wanted it.
func TestCommandEndsWithCaller(t *testing.T) {
	l := up(t, 1)
	bin := binDir(t)
	cmd := vzlab(t, bin, l.Dir, "exec", "alpha", "sh", "-c", "echo ready; exec sleep 4711")
	cmd.Stdout = nil
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Process.Signal(syscall.SIGKILL)
	_ = cmd.Wait()
	eventually(t, "the command to end", func() bool {
		check := host(t, l, "alpha").Command(t.Context(), "pgrep", "-fx", "sleep 4711")
		return check.Run() != nil
	})
}
