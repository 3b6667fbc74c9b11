// Package bench holds what all benchmarks share; each one has a package of its
// own below it. Benchmarks drive vzkit's programs as a user would and know
// nothing of their insides.
package bench

import (
	"bufio"
	"bytes"
	"context"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"github.com/containerd/cgroups/v3"
	"golang.org/x/sys/unix"

	"github.com/vzkit/vzkit/internal/version"
)

// Env is the machine and the programs that a figure was measured with.
type Env struct {
	Kernel string `json:"kernel"` // release, as of uname(2)
	CPU    string `json:"cpu"`    // model name in /proc/cpuinfo
	Cores  int    `json:"cores"`  // usable by this process
	Memory uint64 `json:"memory"` // bytes
	Go     string `json:"go"`
	CRIU   string `json:"criu"` // version; empty if there is none
	Vzkit  string `json:"vzkit"`
	Cgroup string `json:"cgroup"` // "v1", "v2", "hybrid" or "none"
	// FileSystem that containers are on, in words; empty where there are none.
	FileSystem string `json:"file_system,omitempty"`
}

// Environment describes this machine. What cannot be found out stays empty.
func Environment(ctx context.Context) Env {
	return Env{
		Kernel: kernelRelease(),
		CPU:    cpuModel(),
		Cores:  runtime.NumCPU(),
		Memory: memoryBytes(),
		Go:     runtime.Version(),
		CRIU:   criuVersion(ctx),
		Vzkit:  version.String,
		Cgroup: cgroupMode(),
	}
}

func kernelRelease() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}

func cpuModel() string {
	file, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return ""
	}
	lines := bufio.NewScanner(bytes.NewReader(file))
	for lines.Scan() {
		if name, value, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH // arm64 kernels have no model name
}

func memoryBytes() uint64 {
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) != nil {
		return 0
	}
	return uint64(info.Totalram) * uint64(info.Unit)
}

// criuPath is where scripts/setup puts CRIU; the one in PATH comes second.
const criuPath = "/usr/local/lib/vzkit/criu/sbin/criu"

func criuVersion(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for _, path := range []string{criuPath, "criu"} {
		out, err := exec.CommandContext(ctx, path, "--version").Output()
		if err == nil {
			line, _, _ := strings.Cut(string(out), "\n")
			return strings.TrimSpace(strings.TrimPrefix(line, "Version:"))
		}
	}
	return ""
}

func cgroupMode() string {
	switch cgroups.Mode() {
	case cgroups.Legacy:
		return "v1"
	case cgroups.Hybrid:
		return "hybrid"
	case cgroups.Unified:
		return "v2"
	}
	return "none"
}
