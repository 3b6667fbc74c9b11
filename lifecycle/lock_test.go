package lifecycle_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/lifecycle"
)

// locker starts a process that holds the lock of container 101.
func locker(t *testing.T, h *lifecycle.Host) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), asLocker+"="+filepath.Dir(h.Lib))
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "locked\n" {
		t.Fatalf("locker says %q, %v", line, err)
	}
	return cmd
}

func TestLockBetweenProcesses(t *testing.T) {
	h := newHost(t)
	cmd := locker(t, h)
	_, err := h.Lock(101, "vzctl start")
	want := fmt.Sprintf(`^container 101 is locked by vzctl test since \d\d:\d\d:\d\d \(pid %d\)$`, cmd.Process.Pid)
	if err == nil || fault.KindOf(err) != fault.Locked || !regexp.MustCompile(want).MatchString(err.Error()) || fault.HintOf(err) == "" {
		t.Errorf("second lock: %v of kind %d", err, fault.KindOf(err))
	}
	other, err := h.Lock(102, "vzctl start")
	if err != nil {
		t.Fatal(err)
	}
	other.Unlock()
	if err := cmd.Process.Kill(); err != nil { // as the kernel does it: no farewell
		t.Fatal(err)
	}
	_ = cmd.Wait()
	lock, err := h.Lock(101, "vzctl start")
	if err != nil {
		t.Fatalf("lock of a dead process: %v", err)
	}
	lock.Unlock()
}

func TestLockIsExclusiveWithinAProcess(t *testing.T) {
	h := newHost(t)
	for range 3 {
		lock, err := h.Lock(101, "vzctl start")
		if err != nil {
			t.Fatal(err)
		}
		_, err = h.Lock(101, "vzctl stop")
		wantFault(t, "second lock", err, fault.Locked, "locked by vzctl start since")
		lock.Unlock()
		lock.Unlock()
	}
	(*lifecycle.Lock)(nil).Unlock()
}

func TestLockDir(t *testing.T) {
	h := newHost(t)
	dir := filepath.Join(t.TempDir(), "locks")
	put(t, filepath.Join(h.Etc, "vz.conf"), "LOCKDIR="+dir+"\n")
	lock, err := h.Lock(101, "vzctl start")
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Unlock()
	if _, err := os.Stat(filepath.Join(dir, "101.lck")); err != nil {
		t.Error(err)
	}
	put(t, filepath.Join(h.Etc, "vz.conf"), "LOCKDIR="+filepath.Join(h.Etc, "vz.conf")+"\n")
	_, err = h.Lock(101, "vzctl start")
	wantFault(t, "lock directory that is a file", err, fault.Other, "lock directory")
}

// Nobody may change a container that is locked.
func TestLockedContainer(t *testing.T) {
	h := newHost(t)
	c := bare(t, h, 101, "")
	locker(t, h)
	_, create := h.Create(t.Context(), 101, lifecycle.CreateOptions{Template: "minimal"})
	for what, err := range map[string]error{
		"create": create, "start": c.Start(), "stop": c.Stop(t.Context(), true), "destroy": c.Destroy(),
		"mount": c.Mount(), "umount": c.Umount(),
	} {
		wantFault(t, what, err, fault.Locked, "locked by vzctl test")
	}
}
