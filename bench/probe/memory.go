package probe

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const sampleEvery = 20 * time.Millisecond

// Memory samples what a host of a lab takes: anonymous memory and tmpfs, of
// all processes in its cgroup, by the kernel's own account. Other page cache
// is not in it.
type Memory struct {
	file string
	stop chan struct{}
	wg   sync.WaitGroup
	peak atomic.Uint64
}

// OfHost returns the sampler for the host whose init is pid.
func OfHost(pid int) (*Memory, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return nil, err
	}
	for _, file := range statFiles(string(text)) {
		if _, err := os.Stat(file); err == nil {
			return &Memory{file: file}, nil
		}
	}
	return nil, fmt.Errorf("no memory cgroup for process %d", pid)
}

// statFiles lists where a host's memory.stat may be, given what proc(5) says
// of its init, which is in a group of its own below the host's (package lab).
func statFiles(groups string) (files []string) {
	for line := range strings.Lines(groups) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(fields) != 3 {
			continue
		}
		host := filepath.Dir(fields[2])
		switch fields[1] {
		case "memory":
			files = append(files, filepath.Join("/sys/fs/cgroup/memory", host, "memory.stat"))
		case "":
			files = append(files, filepath.Join("/sys/fs/cgroup", host, "memory.stat"))
		}
	}
	return files
}

// Now is what the host takes now, in bytes.
func (m *Memory) Now() (uint64, error) {
	text, err := os.ReadFile(m.file)
	return taken(text), err
}

// taken adds up a memory.stat: cgroup v1 counts the whole tree as total_*, v2
// always does.
func taken(stat []byte) (sum uint64) {
	lines := bufio.NewScanner(bytes.NewReader(stat))
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), " ")
		switch name {
		case "total_rss", "total_shmem", "anon":
		case "shmem":
			if bytes.Contains(stat, []byte("total_shmem")) { // v1: of the group alone
				continue
			}
		default:
			continue
		}
		n, _ := strconv.ParseUint(value, 10, 64)
		sum += n
	}
	return sum
}

// Start begins to sample.
func (m *Memory) Start() {
	m.stop = make(chan struct{})
	m.peak.Store(0)
	m.wg.Go(func() {
		tick := time.NewTicker(sampleEvery)
		defer tick.Stop()
		for {
			if now, err := m.Now(); err == nil {
				m.peak.Store(max(m.peak.Load(), now))
			}
			select {
			case <-m.stop:
				return
			case <-tick.C:
			}
		}
	})
}

// Stop ends sampling and returns the highest sample.
func (m *Memory) Stop() (peak uint64) {
	close(m.stop)
	m.wg.Wait()
	return m.peak.Load()
}
