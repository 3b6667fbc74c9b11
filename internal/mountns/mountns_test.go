package mountns

import (
	"os/exec"
	"syscall"
	"testing"

	"github.com/moby/sys/mountinfo"
)

func TestMountsEndWithTheCommand(t *testing.T) {
	dir := t.TempDir()
	cmd := exec.Command("sh", "-euc", `mount -t tmpfs tmpfs "$1"; grep -q " $1 tmpfs" /proc/self/mounts`, "sh", dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	Private(cmd.SysProcAttr)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if mounted, err := mountinfo.Mounted(dir); err != nil || mounted {
		t.Errorf("mounted here: %v, %v", mounted, err)
	}
}
