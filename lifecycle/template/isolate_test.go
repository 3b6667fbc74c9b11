package template

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moby/sys/mountinfo"
)

func TestScriptSaysWhy(t *testing.T) {
	err := script{text: "echo one; echo; echo two >&2; echo three; echo four; exit 3"}.run(context.Background())
	if err == nil || err.Error() != "exit status 3: two; three; four" {
		t.Errorf("err = %v", err)
	}
	long := script{text: "i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done; exit 1"}.run(context.Background())
	if long == nil || !strings.HasSuffix(long.Error(), "line 1999") {
		t.Errorf("err = %v", long)
	}
}

// TestScriptIsGone kills a script that has a mount and a daemon: both go.
func TestScriptIsGone(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	done := make(chan error, 1)
	go func() {
		done <- script{
			text: `mount -t tmpfs tmpfs "$1/m"; setsid sleep 1234 & echo ready > "$1/ready"; wait`,
			args: []string{mkdir(t, dir, "m")},
		}.run(ctx)
	}()
	awaitFile(ctx, t, filepath.Join(dir, "ready"), "ready\n")
	if mounted, err := mountinfo.Mounted(filepath.Join(dir, "m")); err != nil || mounted {
		t.Errorf("the mount leaked: %v", err)
	}
	for sleepers(t) == 0 && ctx.Err() == nil {
		time.Sleep(10 * time.Millisecond)
	}
	cancel()
	if err := <-done; err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("a killed script ended with %v", err)
	}
	if n := sleepers(t); n != 0 {
		t.Errorf("%d sleepers after", n)
	}
}

func mkdir(t *testing.T, dir, name string) string {
	if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// sleepers counts the live `sleep 1234` that are this process's offspring: the
// script's shell is a child, sleep its child.
func sleepers(t *testing.T) (n int) {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		line, err := os.ReadFile(f)
		if err != nil || string(line) != "sleep\x001234\x00" {
			continue
		}
		if parent(t, parent(t, filepath.Base(filepath.Dir(f)))) == fmt.Sprint(os.Getpid()) {
			n++
		}
	}
	return n
}

func parent(t *testing.T, pid string) string {
	status, err := os.ReadFile("/proc/" + pid + "/status")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(status)) {
		if ppid, ok := strings.CutPrefix(line, "PPid:"); ok {
			return strings.TrimSpace(ppid)
		}
	}
	t.Errorf("no parent of %s", pid)
	return ""
}
