package lifecycle_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/lifecycle"
)

// asLocker makes the test binary a process that holds the lock of a container
// of the host below that directory until it ends.
const asLocker = "LIFECYCLE_TEST_AS_LOCKER"

// templates is the store that all tests share.
var templates string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	if dir := os.Getenv(asLocker); dir != "" {
		return holdLock(dir)
	}
	var err error
	if templates, err = os.MkdirTemp("", "vz-templates-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(templates)
	return m.Run()
}

func hostAt(dir string) *lifecycle.Host {
	return &lifecycle.Host{Etc: filepath.Join(dir, "etc"), Lib: filepath.Join(dir, "lib"), Run: filepath.Join(dir, "run")}
}

// newHost is a host without containers.
func newHost(t *testing.T) *lifecycle.Host {
	t.Helper()
	h := hostAt(t.TempDir())
	put(t, filepath.Join(h.Etc, "vz.conf"), fmt.Sprintf("TEMPLATE=%q\nSKIP_SYSCTL_SETUP=yes\n", templates))
	return h
}

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
		t.Fatal(err)
	}
}

// minimal creates a container from the template minimal.
func minimal(t *testing.T, h *lifecycle.Host, ctid uint32, o lifecycle.CreateOptions) *lifecycle.Container {
	t.Helper()
	o.Template = "minimal"
	c, err := h.Create(t.Context(), ctid, o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// bare is a container whose files are not there.
func bare(t *testing.T, h *lifecycle.Host, ctid uint32, conf string) *lifecycle.Container {
	t.Helper()
	put(t, h.ConfPath(ctid), conf)
	c, err := h.Open(ctid)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// files lists what is below the host's directories, but for locks and ids.
func files(t *testing.T, h *lifecycle.Host) (found []string) {
	t.Helper()
	for _, dir := range []string{h.Etc, h.Lib, h.Run} {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err == nil && !d.IsDir() && filepath.Ext(path) != ".lck" {
				found = append(found, path)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return found
}

// wantFault checks an error's kind and a part of its text.
func wantFault(t *testing.T, what string, err error, kind fault.Kind, text string) {
	t.Helper()
	if err == nil || fault.KindOf(err) != kind || !strings.Contains(err.Error(), text) {
		t.Errorf("%s: error %v of kind %d, want kind %d and %q", what, err, fault.KindOf(err), kind, text)
	}
}

// sleeper is a process that lives until the returned function ends it.
func sleeper(t *testing.T) (pid int, end func()) {
	t.Helper()
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	end = func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	t.Cleanup(end)
	return cmd.Process.Pid, end
}

func holdLock(dir string) int {
	lock, err := hostAt(dir).Lock(101, "vzctl test")
	if err != nil {
		fmt.Println(err)
		return 1
	}
	defer lock.Unlock()
	fmt.Println("locked")
	_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
	return 0
}

func ownerOf(t *testing.T, path string) (uid, gid uint32) {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return st.Uid, st.Gid
}

func cancelled() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}
