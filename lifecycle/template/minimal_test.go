package template

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/internal/mountns"
)

func TestCheckStatic(t *testing.T) {
	if err := checkStatic(busyboxPath); err != nil {
		t.Error(err)
	}
	for _, program := range []string{"/bin/sh", "/etc/passwd", "/nonexistent"} {
		err := checkStatic(program)
		if fault.KindOf(err) != fault.NoTemplate || fault.HintOf(err) != "Install the package busybox-static." {
			t.Errorf("%s: %v", program, err)
		}
	}
}

// TestBootMinimal starts the template's init in namespaces of its own and
// halts it: rcS and rcK must run what is in /etc/rc.d.
func TestBootMinimal(t *testing.T) {
	s, _ := minimalStore(t)
	root := t.TempDir()
	if err := s.Extract(context.Background(), Minimal, root, IDShift{}); err != nil {
		t.Fatal(err)
	}
	for name, minor := range map[string]uint32{"null": 3, "zero": 5} {
		if err := unix.Mknod(filepath.Join(root, "dev", name), unix.S_IFCHR|0o666, int(unix.Mkdev(1, minor))); err != nil {
			t.Fatal(err)
		}
	}
	service := "#!/bin/sh\nhostname > /root/$1\n[ $1 = start ] && sleep 1000 &\n"
	if err := os.WriteFile(filepath.Join(root, "etc/rc.d/S50test"), []byte(service), 0o755); err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(root, "etc/hostname"), "booted\n")
	put(t, filepath.Join(root, "run/stale"), "")

	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	init := exec.CommandContext(ctx, "/sbin/init")
	init.Dir = "/"
	init.SysProcAttr = &syscall.SysProcAttr{
		Chroot: root, Pdeathsig: syscall.SIGKILL,
		Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC | syscall.CLONE_NEWNET,
	}
	mountns.Private(init.SysProcAttr)
	if err := init.Start(); err != nil {
		t.Fatal(err)
	}
	awaitFile(ctx, t, filepath.Join(root, "root/start"), "booted\n")
	if err := init.Process.Signal(syscall.SIGUSR1); err != nil {
		t.Error(err)
	}
	err := init.Wait()
	status, ok := init.ProcessState.Sys().(syscall.WaitStatus)
	// reboot(2): a halted PID namespace's init ends by SIGINT.
	if !ok || !status.Signaled() || status.Signal() != syscall.SIGINT {
		t.Errorf("init ended with %v", err)
	}
	awaitFile(ctx, t, filepath.Join(root, "root/stop"), "booted\n")
	if _, err := os.Stat(filepath.Join(root, "run/stale")); !errors.Is(err, os.ErrNotExist) {
		t.Error("/run was not emptied")
	}
}

func awaitFile(ctx context.Context, t *testing.T, name, want string) {
	t.Helper()
	for {
		got, err := os.ReadFile(name)
		if err == nil && string(got) == want {
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("%s: %q, %v", name, got, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
