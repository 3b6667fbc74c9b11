package lab_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moby/sys/mountinfo"

	"github.com/vzkit/vzkit/internal/cli"
	"github.com/vzkit/vzkit/internal/lab"
	"github.com/vzkit/vzkit/lifecycle/cgroup"
)

// The test binary is also the program vzlab, through a copy of that name.
func TestMain(m *testing.M) {
	lab.Init()
	if filepath.Base(os.Args[0]) == "vzlab" {
		os.Exit(cli.Vzlab(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

// binDir makes a directory with a program vzlab in it.
func binDir(t *testing.T) string {
	t.Helper()
	exe, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "vzlab"), exe, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// up brings up a lab that is gone, to the last trace, when the test is over.
func up(t *testing.T, hosts int) *lab.Lab {
	t.Helper()
	l, err := lab.Up(t.Context(), lab.Config{Dir: filepath.Join(t.TempDir(), "lab"), Hosts: hosts, Bin: binDir(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Down(); err != nil {
			t.Errorf("down: %v", err)
		}
		wantNothing(t, l.Dir)
	})
	return l
}

func host(t *testing.T, l *lab.Lab, name string) *lab.Host {
	t.Helper()
	h, err := l.Host(name)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// run runs a shell script on the host and returns its output, trimmed.
func run(t *testing.T, h *lab.Host, script string) string {
	t.Helper()
	var errs bytes.Buffer
	cmd := h.Command(t.Context(), "sh", "-c", script)
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %s: %v\n%s", h.Name(), script, err, errs.String())
	}
	return strings.TrimSpace(string(out))
}

// eventually waits for what the kernel does in its own time.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !done(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("still waiting: %s", what)
		}
	}
}

// labID is the name of the lab's cgroup, worked out independently.
func labID(dir string) string {
	return fmt.Sprintf("vzlab-%x", sha256.Sum256([]byte(dir)))[:14]
}

// wantNothing checks that no trace of the lab in dir is left on the machine.
func wantNothing(t *testing.T, dir string) {
	t.Helper()
	eventually(t, "processes to go", func() bool { return len(processes(dir)) == 0 })
	if _, err := os.Lstat(dir); !os.IsNotExist(err) {
		t.Errorf("state directory is left: %v", err)
	}
	mounts, err := mountinfo.GetMounts(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range mounts {
		if strings.Contains(m.Mountpoint+m.Root, dir) {
			t.Errorf("mount %s is left", m.Mountpoint)
		}
	}
	hs, err := cgroup.Hierarchies()
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range hs {
		if _, err := os.Stat(filepath.Join(h.Mount, labID(dir))); err == nil {
			t.Errorf("cgroup in %s is left", h.Mount)
		}
	}
	for _, parent := range []string{"/etc", "/var/lib", "/root"} {
		for _, depth := range []string{".*", "*/.*"} {
			for _, path := range glob(t, filepath.Join(parent, depth)) {
				if strings.HasSuffix(path, labID(dir)) {
					t.Errorf("%s is left", path)
				}
			}
		}
	}
	wantThreadsHome(t)
}

func glob(t *testing.T, pattern string) []string {
	t.Helper()
	paths, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

// processes lists the processes that are a lab's, by their cgroup or command.
func processes(dir string) (found []string) {
	all, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range all {
		cgroups, _ := os.ReadFile(p + "/cgroup")
		cmdline, _ := os.ReadFile(p + "/cmdline")
		if bytes.Contains(cgroups, []byte(labID(dir))) || bytes.Contains(cmdline, []byte("\x00"+dir+"\x00")) {
			found = append(found, fmt.Sprintf("%s %q", p, cmdline))
		}
	}
	return found
}

// wantThreadsHome checks that no thread of the test stayed in a host's
// network.
func wantThreadsHome(t *testing.T) {
	t.Helper()
	home, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range glob(t, "/proc/self/task/*/ns/net") {
		if ns, err := os.Readlink(task); err == nil && ns != home {
			t.Errorf("thread %s is in another network namespace", task)
		}
	}
}

// listing describes a tree: every path with its size and time of change, but
// for logs and what a bind mount shows in it.
func listing(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || strings.HasSuffix(path, ".log") {
			return err
		}
		info, err := d.Info()
		if err == nil {
			fmt.Fprintln(&b, path, info.Mode(), info.Size(), info.ModTime().UnixNano())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// vzlab is the program, run as a user would.
func vzlab(t *testing.T, bin, dir string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(bin, "vzlab"), append([]string{"--dir", dir}, args...)...)
	cmd.Stderr = os.Stderr
	return cmd
}
