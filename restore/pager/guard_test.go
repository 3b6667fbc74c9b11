package pager_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vzkit/vzkit/freeze"
	"github.com/vzkit/vzkit/restore/memory"
	"github.com/vzkit/vzkit/restore/pager"
)

// asPager makes the test binary a pager of one process, which its text
// describes, that never fills.
const asPager = "PAGER_TEST_AS_PAGER"

type pagerJob struct {
	Dir     string
	Freezer freeze.Freezer
	Process pager.Process
}

func bePager() error {
	var job pagerJob
	if err := json.Unmarshal([]byte(os.Getenv(asPager)), &job); err != nil {
		return err
	}
	s, err := memory.New(job.Dir)
	if err != nil {
		return err
	}
	for n := range regionPages {
		if err := s.Put(1, job.Process.Ranges[0].Start+uint64(n)*pageSize, 1, content(n)); err != nil {
			return err
		}
	}
	_, err = pager.Attach(context.Background(), pager.Config{Store: s, Freezer: job.Freezer, Processes: []pager.Process{job.Process}})
	if err != nil {
		return err
	}
	fmt.Println("attached")
	time.Sleep(time.Hour)
	return errors.New("not killed")
}

// guards counts the guards of a cgroup.
func guards(t *testing.T, f freeze.Freezer) (count int) {
	t.Helper()
	paths, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		line, _ := os.ReadFile(path)
		if bytes.HasPrefix(line, []byte("vz-pager-guard\x00"+f.Dir+"\x00")) {
			count++
		}
	}
	return count
}

func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("still waiting: %s", what)
		}
	}
}

// When a pager is killed, its container stands still, and no page of it turns
// into a zero page.
func TestPagerIsKilled(t *testing.T) {
	for name, f := range freezers(t) {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := unix.Mount("test", dir, "tmpfs", 0, "size=1g"); err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := unix.Unmount(dir, 0); err != nil {
					t.Error(err)
				}
			}()
			s := start(t, f, nil, 1, nil)
			s.freeze()
			job, err := json.Marshal(pagerJob{dir, f, s.process()})
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command("/proc/self/exe")
			cmd.Env = append(os.Environ(), asPager+"="+string(job))
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			line := make([]byte, 64)
			if n, err := out.Read(line); string(line[:n]) != "attached\n" {
				t.Fatalf("pager says %q, %v", line[:n], err)
			}
			s.thaw()
			if guards(t, f) != 1 {
				t.Errorf("%d guards", guards(t, f))
			}
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait()
			eventually(t, "the freeze", func() bool { frozen, err := f.Frozen(); return err == nil && frozen })
			smaps, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps", s.cmd.Process.Pid))
			if err != nil || !strings.Contains(string(smaps), " um") {
				t.Errorf("no mapping is registered any more, %v", err)
			}
			if err := errors.Join(s.cmd.Process.Kill(), f.Thaw()); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the guard to end", func() bool { return guards(t, f) == 0 })
		})
	}
}
