package track

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// census tells whether a process of the container may have come since the last
// look. Writes to shared memory are noted in the page tables of who wrote; a
// process that comes, writes and goes between two looks takes the notes along.
//
// Tasks that came and are still there do not count: their page tables are. Pids
// are given out in order, so a process that is made in the container's pid
// namespace just to look at its pid there tells how many were given out since
// the last one. It costs the container a pid, once a look.
type census struct {
	last int // pid of the last look, 0: unknown
}

// look counts anew. It wants a task in the container's outermost pid namespace.
func (c *census) look(t *task) (unseen bool) {
	before := c.last
	now, err := pidIn(t.tid)
	if err != nil {
		now = 0
	}
	c.last = now
	if before == 0 || now <= before || now-before > maxNew {
		return true
	}
	if before+1 == now {
		return false
	}
	if !ownProc(t) {
		return true
	}
	for pid := before + 1; pid < now; pid++ {
		if !stillThere(t.tid, pid) {
			return true
		}
	}
	return false
}

// maxNew is how many new tasks are looked for: those that are still there have
// taken nothing along.
const maxNew = 64

// ownProc tells whether the /proc that a task sees is that of its own pid
// namespace: there the task is in the same namespace, and has no pid but one. In
// another's, other tasks have the pids.
func ownProc(t *task) bool {
	inner := t.pids[len(t.pids)-1]
	var here, there unix.Stat_t
	if unix.Stat(fmt.Sprintf("/proc/%d/ns/pid", t.tid), &here) != nil ||
		unix.Stat(fmt.Sprintf("/proc/%d/root/proc/%d/ns/pid", t.tid, inner), &there) != nil {
		return false
	}
	seen, err := pidsIn(fmt.Sprintf("/proc/%d/root/proc/%d/status", t.tid, inner))
	return err == nil && len(seen) == 1 && here.Dev == there.Dev && here.Ino == there.Ino
}

// stillThere tells whether a thread of a pid namespace lives, by the /proc that
// a thread in it sees. Where that has none, nobody is there.
func stillThere(tid, pid int) bool {
	_, err := os.Stat(fmt.Sprintf("/proc/%d/root/proc/%d/status", tid, pid))
	return err == nil
}

// pidIn makes a process in the pid namespace of a thread and returns its pid
// there. The thread that does it ends: its further children would go there, too.
func pidIn(tid int) (pid int, err error) {
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/pid", tid))
	if err != nil {
		return 0, err
	}
	defer ns.Close()
	err = onThread(func() (bool, error) {
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWPID); err != nil {
			return false, fmt.Errorf("enter pid namespace: %w", err)
		}
		child := exec.Command(anyProgram)
		if err := child.Start(); err != nil {
			return true, fmt.Errorf("start process: %w", err)
		}
		all, err := pidsOf(child.Process.Pid)
		_ = child.Process.Kill()
		_ = child.Wait()
		if err == nil {
			pid = all[len(all)-1]
		}
		return true, err
	})
	return pid, err
}

// anyProgram is one that needs no arguments and does no harm. It waits for
// input, if there is any.
const anyProgram = "cat"

// pidsOf reads the pids of a process in all its namespaces from this one on,
// the innermost last (proc_pid_status(5)).
func pidsOf(pid int) (all []int, err error) {
	if all, err = pidsIn(fmt.Sprintf("/proc/%d/status", pid)); err == nil && len(all) == 0 {
		all = []int{pid} // a kernel without namespaces
	}
	return all, err
}

// pidsIn reads the pids in a status file.
func pidsIn(status string) (all []int, err error) {
	text, err := os.ReadFile(status)
	if err != nil {
		return nil, err
	}
	_, rest, _ := strings.Cut(string(text), "\nNSpid:")
	line, _, _ := strings.Cut(rest, "\n")
	for _, word := range strings.Fields(line) {
		n, err := strconv.Atoi(word)
		if err != nil {
			return nil, fmt.Errorf("%s has pid %q: %w", status, word, err)
		}
		all = append(all, n)
	}
	return all, nil
}
