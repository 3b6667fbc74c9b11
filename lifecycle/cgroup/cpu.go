package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// period is the interval in which a limit of CPU time is accounted
// (sched-bwc.rst).
const period = 100 * time.Millisecond

// find returns the group's directory where the controller is, in v1 or v2.
func (g *Group) find(controller string) (dir string, unified bool, err error) {
	for _, h := range g.hs {
		if h.Unified {
			if list, _ := os.ReadFile(filepath.Join(g.dir(h), "cgroup.controllers")); strings.Contains(string(list), controller) {
				return g.dir(h), true, nil
			}
		} else if h.has(controller) {
			return g.dir(h), false, nil
		}
	}
	return "", false, fmt.Errorf("no cgroup controller %q", controller)
}

// CPUTime is how much CPU time the group has used: cpuacct.usage of v1, or
// cpu.stat of v2.
func (g *Group) CPUTime() (time.Duration, error) {
	if dir, unified, err := g.find("cpuacct"); err == nil && !unified {
		text, err := os.ReadFile(filepath.Join(dir, "cpuacct.usage"))
		if err != nil {
			return 0, fmt.Errorf("read CPU time: %w", err)
		}
		ns, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
		return time.Duration(ns), err
	}
	dir, _, err := g.find("cpu")
	if err != nil {
		return 0, err
	}
	text, err := os.ReadFile(filepath.Join(dir, "cpu.stat"))
	if err != nil {
		return 0, fmt.Errorf("read CPU time: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		var us int64
		if n, _ := fmt.Sscanf(line, "usage_usec %d", &us); n == 1 {
			return time.Duration(us) * time.Microsecond, nil
		}
	}
	return 0, errors.New("cpu.stat has no usage_usec")
}

// LimitCPU lets the group use at most so many CPUs from now on: cfs_quota_us
// of v1, cpu.max of v2. lift gives it back what it had before.
func (g *Group) LimitCPU(cpus float64) (lift func() error, err error) {
	dir, unified, err := g.find("cpu")
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, "cpu.cfs_quota_us")
	text := strconv.FormatInt(max(int64(cpus*float64(period.Microseconds())), 1000), 10)
	if unified {
		path = filepath.Join(dir, "cpu.max")
		text += " " + strconv.FormatInt(period.Microseconds(), 10)
	}
	before, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read CPU limit: %w", err)
	}
	if err := os.WriteFile(path, []byte(text), 0); err != nil {
		return nil, fmt.Errorf("limit CPU to %.2f: %w", cpus, err)
	}
	return func() error { return os.WriteFile(path, before, 0) }, nil
}
