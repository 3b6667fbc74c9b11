package pace

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

const (
	ioprioWhoProcess = 1       // one thread, whatever the name says (ioprio_set(2))
	ioprioIdle       = 3 << 13 // IOPRIO_CLASS_IDLE, which has no levels
	politeNice       = 10
)

// priority is what a thread has of disk and processors.
type priority struct{ io, nice int }

// Polite gives all threads of this process the I/O class idle and the nice
// value 10, and so whatever they start: the kernel keeps both for each thread,
// and a new thread or process has those of the thread that made it. Goroutines
// therefore may move as they like. What they start meanwhile keeps it: call
// restore before CRIU is started, and before a container is frozen. restore
// gives all threads what the calling one had before.
//
// The I/O class is honoured by the schedulers bfq and, since Linux 5.14,
// mq-deadline; none and kyber ignore it (/sys/block/*/queue/scheduler). Neither
// lets the class idle starve. It counts for reads and for direct and synchronous
// writes; what is written back later has the class of the kernel's threads.
func Polite() (restore func() error, err error) {
	before, err := priorityOf(unix.Gettid())
	if err != nil {
		return nil, err
	}
	polite := priority{ioprioIdle, max(politeNice, before.nice)}
	restore = func() error { return setAll(before) }
	if err := setAll(polite); err != nil {
		return nil, errors.Join(err, restore())
	}
	return restore, nil
}

// setAll goes on until it finds no thread that differs: one that was made
// meanwhile has the priority of a thread that had not been reached.
func setAll(want priority) error {
	for {
		tids, err := threads()
		if err != nil {
			return err
		}
		changed := false
		for _, tid := range tids {
			did, err := set(tid, want)
			if err != nil && !errors.Is(err, unix.ESRCH) { // ended since
				return err
			}
			changed = changed || did
		}
		if !changed {
			return nil
		}
	}
}

func threads() (tids []int, err error) {
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return nil, err
	}
	for _, task := range tasks {
		tid, err := strconv.Atoi(task.Name())
		if err != nil {
			return nil, err
		}
		tids = append(tids, tid)
	}
	return tids, nil
}

func set(tid int, want priority) (changed bool, err error) {
	has, err := priorityOf(tid)
	if err != nil || has == want {
		return false, err
	}
	if _, _, errno := unix.Syscall(unix.SYS_IOPRIO_SET, ioprioWhoProcess, uintptr(tid), uintptr(want.io)); errno != 0 {
		return false, fmt.Errorf("set I/O priority of thread %d: %w", tid, errno)
	}
	if err := unix.Setpriority(unix.PRIO_PROCESS, tid, want.nice); err != nil {
		return false, fmt.Errorf("set nice value of thread %d: %w", tid, err)
	}
	return true, nil
}

func priorityOf(tid int) (priority, error) {
	io, _, errno := unix.Syscall(unix.SYS_IOPRIO_GET, ioprioWhoProcess, uintptr(tid), 0)
	if errno != 0 {
		return priority{}, fmt.Errorf("get I/O priority of thread %d: %w", tid, errno)
	}
	raw, err := unix.Getpriority(unix.PRIO_PROCESS, tid)
	if err != nil {
		return priority{}, fmt.Errorf("get nice value of thread %d: %w", tid, err)
	}
	return priority{int(io), 20 - raw}, nil // the system call has no negative results
}
