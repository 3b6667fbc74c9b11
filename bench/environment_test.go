package bench

import (
	"os"
	"strings"
	"testing"
)

func TestEnvironment(t *testing.T) {
	env := Environment(t.Context())
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil || env.Kernel != strings.TrimSpace(string(release)) {
		t.Errorf("kernel %q, want %q (%v)", env.Kernel, release, err)
	}
	if env.CPU == "" || env.Cores < 1 || env.Memory < 1<<20 || env.Vzkit == "" || !strings.HasPrefix(env.Go, "go") {
		t.Errorf("%+v", env)
	}
	switch env.Cgroup {
	case "v1", "v2", "hybrid", "none":
	default:
		t.Errorf("cgroup %q", env.Cgroup)
	}
}
