package main

import (
	"bufio"
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// build makes the program as the demo does and returns a root directory that
// holds it and nothing else but /dev/null.
func build(t *testing.T) (root string) {
	t.Helper()
	root = t.TempDir()
	cmd := exec.Command("go", "build", "-o", filepath.Join(root, "vzbench"), ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if err := os.Mkdir(filepath.Join(root, "dev"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mknod(filepath.Join(root, "dev/null"), syscall.S_IFCHR|0o666, 1<<8|3); err != nil {
		t.Fatal(err)
	}
	return root
}

// The server must run in a container that has no libraries, and hold nothing
// open that is not the container's.
func TestServeInBareContainer(t *testing.T) {
	root := build(t)
	file, err := elf.Open(filepath.Join(root, "vzbench"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, p := range file.Progs {
		if p.Type == elf.PT_INTERP {
			t.Error("the program needs a dynamic loader")
		}
	}
	cmd := exec.Command("/vzbench", "serve", "--listen", "127.0.0.1:0", "--pidfile", "/pid")
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root, Pdeathsig: syscall.SIGKILL}
	cmd.Dir = "/"
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	if line, err := bufio.NewReader(stdout).ReadString('\n'); err != nil || !strings.HasPrefix(line, "listening on ") {
		t.Fatalf("%q, %v", line, err)
	}
	checkDescriptors(t, cmd.Process.Pid)
	cmd.Process.Signal(syscall.SIGTERM)
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(root, "pid")); !os.IsNotExist(err) {
		t.Errorf("pid file is left behind: %v", err)
	}
}

func checkDescriptors(t *testing.T, pid int) {
	t.Helper()
	dir := filepath.Join("/proc", strconv.Itoa(pid), "fd")
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		target, _ := os.Readlink(filepath.Join(dir, e.Name()))
		if e.Name() == "0" && !strings.HasSuffix(target, "/dev/null") || strings.HasPrefix(target, "/sys/") {
			t.Errorf("descriptor %s is %s", e.Name(), target)
		}
	}
}
