package hosts

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vzkit/vzkit/internal/fault"
)

// showMounts is in the environment of a program that tells what mount
// namespace OwnMounts has put it in.
const showMounts = "TEST_SHOW_MOUNTS"

func TestMain(m *testing.M) {
	if os.Getenv(showMounts) == "" {
		os.Exit(m.Run())
	}
	if err := OwnMounts(); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	ns, err := os.Readlink("/proc/self/ns/mnt")
	fmt.Print(ns, " ", err, " ", os.Args[1:], os.Getenv(ownMounts))
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
}

func needLoop(t *testing.T) {
	t.Helper()
	needRoot(t)
	if _, err := os.Stat("/dev/loop-control"); err != nil {
		t.Skip("this machine has no loop devices:", err)
	}
}

func TestOwnMounts(t *testing.T) {
	needRoot(t)
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "a", "b")
	cmd.Env = append(os.Environ(), showMounts+"=1", ownMounts+"=1") // another process's
	out, err := cmd.CombinedOutput()
	ours, _ := os.Readlink("/proc/self/ns/mnt")
	text := string(out)
	if err != nil || !strings.HasPrefix(text, "mnt:[") || !strings.HasSuffix(text, " <nil> [a b]") || strings.HasPrefix(text, ours) {
		t.Errorf("%v: %q, ours is %q", err, text, ours)
	}
}

// mounted makes the file systems of two hosts, until the test ends.
func mounted(t *testing.T, dir string, need Need) (about string, err error) {
	t.Helper()
	var log bytes.Buffer
	about, err = mountDisks(t.Context(), dir, need, &log)
	if err == nil && log.Len() > 0 {
		t.Errorf("it says %q", log.String())
	}
	t.Cleanup(func() {
		for _, host := range []string{Alpha, Beta} {
			_ = unix.Unmount(filepath.Join(dir, host, "var-lib-vz"), unix.MNT_DETACH)
		}
		if err := released(dir); err != nil {
			t.Error(err)
		}
	})
	return about, err
}

func TestDisks(t *testing.T) {
	needLoop(t)
	dir := t.TempDir()
	about, err := mounted(t, dir, Need{Inodes: 50_000})
	if err != nil || !strings.HasPrefix(about, "ext4 of each host's own") {
		t.Fatalf("%q, %v", about, err)
	}
	var fs [2]unix.Statfs_t
	for i, host := range []string{Alpha, Beta} {
		if err := unix.Statfs(filepath.Join(dir, host, "var-lib-vz"), &fs[i]); err != nil {
			t.Fatal(err)
		}
		if fs[i].Type != unix.EXT4_SUPER_MAGIC || fs[i].Files < 50_000 || fs[i].Blocks*uint64(fs[i].Bsize) < diskSize/10*9 {
			t.Errorf("%s: %+v", host, fs[i])
		}
	}
	if fs[0].Fsid == fs[1].Fsid {
		t.Error("both are on one file system")
	}
	if devices, err := backedBelow(dir); err != nil || len(devices) != 2 {
		t.Errorf("%q, %v", devices, err)
	}
}

func TestDisksAreUndone(t *testing.T) {
	needLoop(t)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, Beta), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := mounted(t, dir, Need{}); err == nil {
		t.Fatal("no error where a host has no directory")
	}
	if err := released(dir); err != nil {
		t.Error(err)
	}
	left, _ := os.ReadDir(filepath.Join(dir, Alpha))
	if len(left) != 1 || os.Remove(filepath.Join(dir, Alpha, "var-lib-vz")) != nil {
		t.Errorf("left: %v", left)
	}
}

func TestDisksAreShared(t *testing.T) {
	dir := t.TempDir()
	path := os.Getenv("PATH")
	t.Setenv("PATH", "")
	var log bytes.Buffer
	about, err := mountDisks(t.Context(), dir, Need{}, &log)
	if err != nil || !strings.HasSuffix(about, "shared by the hosts") || strings.Count(log.String(), "\n") != 1 {
		t.Errorf("%q, %q, %v", about, log.String(), err)
	}
	t.Setenv("PATH", path)
	if about := shared(t.Context(), "/proc"); about != "proc, shared by the hosts" {
		t.Errorf("/proc is on %q", about)
	}
}

func TestNeed(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "not", "there")
	if err := (Need{Bytes: 1}).Check(dir); err != nil {
		t.Error(err)
	}
	for _, n := range []Need{{Bytes: 1 << 60}, {Inodes: 1 << 52}} {
		if err := n.Check(dir); fault.KindOf(err) != fault.NoSpace || !strings.Contains(err.Error(), "needed") {
			t.Errorf("%+v: %v", n, err)
		}
	}
	if n := (Need{Inodes: 20 << 20}).diskSize(); n != 80<<30 {
		t.Errorf("%d bytes for 20 Mi inodes", n)
	}
}

func TestClaim(t *testing.T) {
	dir := t.TempDir()
	if err := mayTake(dir); err != nil {
		t.Fatal(err)
	}
	file, err := claim(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := mayTake(dir); fault.KindOf(err) != fault.Running {
		t.Errorf("a measurement runs: %v", err)
	}
	file.Close()
	state := filepath.Join(dir, "state")
	if err := os.Mkdir(state, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(state, "lab.json"), []byte(`{"bin":"/","hosts":2}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := mayTake(dir); err != nil {
		t.Errorf("after one that was killed: %v", err)
	}
	if err := os.Remove(file.Name()); err != nil {
		t.Fatal(err)
	}
	if err := mayTake(dir); fault.KindOf(err) != fault.Running {
		t.Errorf("a lab of the user's own: %v", err)
	}
}
