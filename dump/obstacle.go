package dump

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/internal/procfs"
)

// impossible are files that CRIU cannot describe, by what their descriptors
// link to (criu.org/What_cannot_be_checkpointed).
var impossible = map[string]string{
	"anon_inode:[io_uring]":    "an io_uring",
	"anon_inode:[perf_event]":  "a perf event",
	"anon_inode:[userfaultfd]": "a userfaultfd",
	"anon_inode:bpf-prog":      "a BPF program",
}

// Obstacle looks for what CRIU would stumble over, among the processes of a
// container with that init, which still run: something it cannot describe, a
// tracer that would not let it in, or a process it would not find. It returns
// a sentence that names the process, or "" if it sees none.
func Obstacle(init int, pids []int) (string, error) {
	if what := Stranger(init, pids); what != "" {
		return what, nil
	}
	for _, pid := range pids {
		what, err := obstacleOf(pid)
		if err != nil && !os.IsNotExist(err) && err != unix.ESRCH {
			return "", fmt.Errorf("look at process %d: %w", pid, err)
		}
		if what != "" {
			return named(pid, what), nil
		}
	}
	return "", nil
}

// Check is Obstacle as an error for whoever wants to dump container ctid. It
// is to be called while the container runs: then it costs nothing, and a
// stopped process can be told from a frozen one.
func Check(ctid uint32, init int, pids []int) error {
	what, err := Obstacle(init, pids)
	if err != nil {
		return fault.Wrap(fault.Checkpoint, err)
	}
	if what == "" {
		return nil
	}
	return fault.New(fault.Checkpoint, "container %d cannot be checkpointed: %s", ctid, what).
		WithHint("Let that process end or go on, or stop the container first.")
}

func named(pid int, what string) string {
	comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	return fmt.Sprintf("process %d %q %s", pid, bytes.TrimSpace(comm), what)
}

// Stranger looks for a process of the container that does not descend from its
// init: it was put in from outside, and whoever waits for it would lose it.
// CRIU dumps the tree below init and nothing else.
func Stranger(init int, pids []int) string {
	inside := map[int]bool{init: true}
	for _, pid := range pids {
		if !descends(pid, inside) {
			return named(pid, "was started from outside, by vzctl exec or the like")
		}
	}
	return ""
}

// descends tells whether a process descends from one that is known to be inside,
// and notes those that do. One that ends meanwhile does: also a parent may be
// ending, and then it is in no list any more but still a parent.
func descends(pid int, inside map[int]bool) bool {
	line := []int{}
	for at := pid; !inside[at]; {
		if at == 0 {
			_, err := procfs.StartTime(pid)
			return err != nil
		}
		line = append(line, at)
		parent, err := procfs.Parent(at)
		if err != nil {
			return true
		}
		at = parent
	}
	for _, at := range line {
		inside[at] = true
	}
	return true
}

// Ghosts is how much memory CRIU's images will take for files that the
// processes have open and that are deleted, in bytes.
func Ghosts(pids []int) (bytes uint64, err error) {
	seen := map[[2]uint64]bool{}
	for _, pid := range pids {
		fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
		if err != nil {
			return 0, err
		}
		for _, fd := range fds {
			var st unix.Stat_t
			file := [2]uint64{}
			if unix.Stat(fd, &st) == nil { // else closed meanwhile
				file = [2]uint64{st.Dev, st.Ino}
			}
			if st.Mode&unix.S_IFMT == unix.S_IFREG && st.Nlink == 0 && !seen[file] {
				seen[file] = true
				bytes += uint64(st.Blocks) * 512
			}
		}
	}
	return bytes, nil
}

// InUse is what processes have in memory, in bytes, with the deleted files that
// they keep open. Shared pages count for each: it is an upper bound.
func InUse(pids []int) (sum uint64, err error) {
	for _, pid := range pids {
		rss, err := procfs.RSS(pid)
		if err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.ESRCH) { // it has not just ended
			return 0, err
		}
		sum += rss
	}
	ghosts, err := Ghosts(pids)
	return sum + ghosts, err
}

func obstacleOf(pid int) (string, error) {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil {
		return "", err
	}
	for _, status := range tasks {
		if tracer := field(status, "TracerPid"); tracer != "0" && tracer != "" {
			return "is traced by process " + tracer, nil
		}
		if strings.HasPrefix(field(status, "State"), "T") {
			return "is stopped (SIGSTOP or Ctrl-Z)", nil
		}
	}
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	fds, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	for _, fd := range fds {
		link, err := os.Readlink(filepath.Join(dir, fd.Name()))
		if what, ok := impossible[link]; ok && err == nil {
			return "has " + what + " open", nil
		}
	}
	return "", nil
}

// field reads a line of proc_pid_status(5), "" for a task that has ended
// meanwhile. A stopped task must be found while it is not frozen: CRIU, or
// anybody else who wants to trace a frozen one, would wait for ever.
func field(status, name string) string {
	text, err := os.ReadFile(status)
	if err != nil {
		return ""
	}
	_, rest, _ := strings.Cut(string(text), "\n"+name+":")
	value, _, _ := strings.Cut(rest, "\n")
	return strings.TrimSpace(value)
}
