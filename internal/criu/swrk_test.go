package criu_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/checkpoint-restore/go-criu/v7/rpc"
	"github.com/moby/sys/mountinfo"
	"google.golang.org/protobuf/proto"

	"github.com/vzkit/vzkit/internal/criu"
	"github.com/vzkit/vzkit/internal/fault"
)

func find(t *testing.T) string {
	t.Helper()
	path, err := criu.Find()
	if err != nil {
		t.Fatalf("%v: %s", err, fault.HintOf(err))
	}
	return path
}

func TestFind(t *testing.T) {
	t.Setenv("VZKIT_CRIU", "/some/where/criu")
	if path := find(t); path != "/some/where/criu" {
		t.Errorf("found %q", path)
	}
}

func TestVersion(t *testing.T) {
	path := find(t)
	got, err := criu.Version(path)
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(path, "--version").Output()
	want := fmt.Sprintf("Version: %d.%d", got/10000, got/100%100)
	if err != nil || !strings.Contains(string(out), want) {
		t.Errorf("version is %d, but --version says %q, %v", got, out, err)
	}
}

// CRIU looks for the mount of its own root, which has none in a plain chroot:
// there it must say no.
func TestCheck(t *testing.T) {
	mounts, err := mountinfo.GetMounts(mountinfo.SingleEntryFilter("/"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = criu.Do(find(t), criu.Request{Type: rpc.CriuReqType_CHECK, Opts: criu.Quiet()})
	if works := len(mounts) > 0; works != (err == nil) {
		t.Errorf("check: %v, root is a mount point: %v", err, works)
	}
}

func TestDoWithWhatIsNoCriu(t *testing.T) {
	text := filepath.Join(t.TempDir(), "criu")
	if err := os.WriteFile(text, []byte("not a program"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/bin/true", "/bin/false", "/bin/cat", text, filepath.Join(t.TempDir(), "none")} {
		if resp, err := criu.Do(path, criu.Request{Type: rpc.CriuReqType_VERSION}); err == nil {
			t.Errorf("%q answers %v", path, resp)
		}
		if _, err := criu.Version(path); fault.KindOf(err) != fault.NoEngine || fault.HintOf(err) == "" {
			t.Errorf("version of %q: %v", path, err)
		}
	}
}

// A worker that answers what is no message must give an error.
func TestDoWithGarbage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "criu")
	if err := os.WriteFile(path, []byte("#!/bin/sh\ndd bs=64k count=1 <&3 >/dev/null 2>&1\necho garbage >&3\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if resp, err := criu.Do(path, criu.Request{Type: rpc.CriuReqType_VERSION}); err == nil {
		t.Errorf("garbage was read as %v", resp)
	}
}

func TestDoRefused(t *testing.T) {
	opts := criu.Quiet()
	opts.Pid = proto.Int32(1 << 22) // above the greatest pid
	if _, err := criu.Do(find(t), criu.Request{Type: rpc.CriuReqType_DUMP, Opts: opts}); err == nil {
		t.Error("CRIU dumped a process that does not exist")
	}
}

// A notification that fails makes CRIU give the dump up and let the process
// go; the error is the notification's.
func TestDoNotificationFails(t *testing.T) {
	cmd := exec.Command("sleep", "1000")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	var scripts []string
	refusal := errors.New("not today")
	_, err := criu.Do(find(t), criu.Request{
		Type: rpc.CriuReqType_DUMP,
		Opts: &rpc.CriuOpts{
			ImagesDirFd: proto.Int32(-1), ImagesDir: proto.String(t.TempDir()), LogFile: proto.String("dump.log"),
			Pid: proto.Int32(int32(cmd.Process.Pid)), LeaveRunning: proto.Bool(true),
		},
		Notify: func(script string, _ int) error {
			scripts = append(scripts, script)
			return refusal
		},
	})
	if !errors.Is(err, refusal) || !strings.HasPrefix(err.Error(), "pre-dump: ") {
		t.Errorf("error %v, want the refusal of pre-dump", err)
	}
	if !slices.Equal(scripts, []string{"pre-dump"}) {
		t.Errorf("notifications %q", scripts)
	}
	if err := cmd.Process.Signal(syscall.Signal(0)); err != nil {
		t.Errorf("process after the dump: %v", err)
	}
}
