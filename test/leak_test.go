package test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/moby/sys/mountinfo"
)

// leaks looks for what the lab should have taken with it. scripts/leakcheck
// looks at the machine as a whole, around all tests.
func leaks() error {
	var left []string
	processes, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range processes {
		cmdline, _ := os.ReadFile(p + "/cmdline")
		if p != fmt.Sprintf("/proc/%d", os.Getpid()) && strings.Contains(string(cmdline), ground) {
			left = append(left, fmt.Sprintf("process %s %q", filepath.Base(p), cmdline))
		}
	}
	mounts, err := mountinfo.GetMounts(nil)
	if err != nil {
		return err
	}
	for _, m := range mounts {
		if strings.Contains(m.Mountpoint+" "+m.Root, ground) {
			left = append(left, "mount "+m.Mountpoint)
		}
	}
	if _, err := os.Lstat(ground); err == nil {
		left = append(left, "directory "+ground)
	}
	if len(left) > 0 {
		return fmt.Errorf("left on this machine: %s", strings.Join(left, "; "))
	}
	return nil
}
