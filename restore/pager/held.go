package pager

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"github.com/vzkit/vzkit/internal/inject"
)

// held is the threads of a container, by ptrace. All calls come from one
// thread, which the kernel knows as their tracer.
type held struct {
	tasks     []*inject.Task
	byProcess map[int]*inject.Task // one of each that stands still
}

// seize takes hold of all threads of the cgroup and of the given processes.
// Frozen ones are not held before they are thawed and waited for.
func seize(cgroup string, processes []Process) (*held, error) {
	pids, err := members(cgroup)
	if err != nil {
		return nil, err
	}
	for _, p := range processes {
		pids[p.PID] = true
	}
	h := &held{byProcess: map[int]*inject.Task{}}
	for pid := range pids {
		if err := h.seizeProcess(pid); err != nil {
			return nil, err
		}
	}
	return h, nil
}

func (h *held) seizeProcess(pid int) error {
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list threads of process %d: %w", pid, err)
	}
	for _, thread := range threads {
		tid, err := strconv.Atoi(thread.Name())
		if err != nil {
			continue
		}
		task, err := inject.SeizeThread(pid, tid)
		if errors.Is(err, inject.ErrGone) { // a zombie
			continue
		}
		if err != nil {
			return err
		}
		h.tasks = append(h.tasks, task)
		if h.byProcess[pid] == nil {
			h.byProcess[pid] = task
		}
	}
	return nil
}

// wait waits until all stand still.
func (h *held) wait() error {
	for _, task := range h.tasks {
		if err := task.Wait(); err != nil && !errors.Is(err, inject.ErrGone) {
			return err
		}
	}
	return nil
}

func (h *held) release() error {
	var errs []error
	for _, task := range h.tasks {
		errs = append(errs, task.Release())
	}
	return errors.Join(errs...)
}

// members lists the processes of a cgroup and of those below it.
func members(cgroup string) (map[int]bool, error) {
	pids := map[int]bool{}
	err := filepath.WalkDir(cgroup, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.IsDir() {
			return err
		}
		return readPids(filepath.Join(path, "cgroup.procs"), pids)
	})
	if err != nil {
		return nil, fmt.Errorf("list processes of %q: %w", cgroup, err)
	}
	return pids, nil
}

func readPids(path string, pids map[int]bool) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		pid, err := strconv.Atoi(lines.Text())
		if err != nil {
			return err
		}
		if pid > 0 { // 0: of another pid namespace
			pids[pid] = true
		}
	}
	return lines.Err()
}
