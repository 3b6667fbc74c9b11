package track

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vzkit/vzkit/internal/inject"
)

// patience is how long a task may take to stop. One that waits for a disk or
// for a vfork child takes as long as it takes; nobody waits for it here.
const patience = 100 * time.Millisecond

var errLate = errors.New("task does not stop in time")

// onThread runs do on a thread of its own that may ptrace. If do says that it
// left a task behind, the thread ends, and with it its hold on that task.
func onThread(do func() (left bool, err error)) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		left, err := do()
		if !left {
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	return <-done
}

// stop stops a thread, if that does not take long. It is called on a thread
// that may ptrace.
func stop(pid, tid int) (t *inject.Task, left bool, err error) {
	if t, err = inject.SeizeThread(pid, tid); err != nil {
		return nil, false, err
	}
	for end, n := time.Now().Add(patience), 0; ; n++ {
		var info unix.Siginfo
		err := unix.Waitid(unix.P_PID, tid, &info, unix.WEXITED|unix.WSTOPPED|unix.WALL|unix.WNOHANG|unix.WNOWAIT, nil)
		if err != nil && err != unix.EINTR || info.Signo != 0 {
			break
		}
		if time.Now().After(end) {
			return nil, true, errLate
		}
		if n > 50 {
			time.Sleep(20 * time.Microsecond)
		} else {
			runtime.Gosched()
		}
	}
	if err := t.Wait(); err != nil {
		return nil, !errors.Is(err, inject.ErrGone), err
	}
	return t, false, nil
}

// attach gets a userfaultfd for a space, made by a process that has it, as it
// must be.
func (s *space) attach() (err error) {
	for i := range s.tasks {
		if err = s.attachBy(&s.tasks[i]); !errors.Is(err, errLate) {
			return err
		}
	}
	return err
}

func (s *space) attachBy(t *task) error {
	return onThread(func() (bool, error) {
		task, left, err := stop(t.pid, t.tid)
		if err != nil {
			return left, err
		}
		err = s.takeUffd(task, t)
		return false, errors.Join(err, task.Release())
	})
}

// takeUffd makes a userfaultfd in a stopped task and moves it here.
func (s *space) takeUffd(task *inject.Task, t *task) error {
	if !s.is(t) {
		return inject.ErrGone
	}
	there, err := task.Syscall(unix.SYS_USERFAULTFD, unix.O_CLOEXEC|unix.O_NONBLOCK|uffdUserMode)
	if err != nil {
		return fmt.Errorf("make userfaultfd: %w", err)
	}
	fd, err := takeDescriptor(t, int(there))
	if _, closing := task.Syscall(unix.SYS_CLOSE, there); closing != nil && err == nil {
		err = fmt.Errorf("close userfaultfd: %w", closing)
		unix.Close(fd)
	}
	if err != nil {
		return err
	}
	if err := handshake(fd); err != nil {
		unix.Close(fd)
		return err
	}
	s.uffd = fd
	return nil
}

// takeDescriptor copies a descriptor of a thread. A leader that has ended has
// none any more, so a thread is asked by itself then (Linux 6.9).
func takeDescriptor(t *task, there int) (int, error) {
	from := t.pidfd
	if t.tid != t.pid {
		const pidfdThread = unix.O_EXCL
		fd, err := unix.PidfdOpen(t.tid, pidfdThread)
		if err != nil {
			return -1, fmt.Errorf("open thread: %w", err)
		}
		defer unix.Close(fd)
		from = fd
	}
	fd, err := unix.PidfdGetfd(from, there, 0)
	if err != nil {
		return -1, fmt.Errorf("take userfaultfd: %w", err)
	}
	return fd, nil
}

// paused runs do while all threads of a process stand still.
func paused(pid int, do func() error) error {
	return onThread(func() (bool, error) {
		var tasks []*inject.Task
		left, err := stopAll(pid, &tasks)
		if err == nil {
			err = do()
		}
		for _, t := range tasks {
			if e := t.Release(); err == nil {
				err = e
			}
		}
		return left, err
	})
}

// stopAll stops threads until there are no new ones.
func stopAll(pid int, tasks *[]*inject.Task) (left bool, err error) {
	stopped := map[int]bool{}
	for more := true; more; {
		more = false
		entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
		if err != nil {
			return false, err
		}
		for _, e := range entries {
			var tid int
			if _, err := fmt.Sscan(e.Name(), &tid); err != nil || stopped[tid] {
				continue
			}
			t, left, err := stop(pid, tid)
			if errors.Is(err, inject.ErrGone) {
				stopped[tid] = true
				continue
			}
			if err != nil {
				return left, err
			}
			stopped[tid], more = true, true
			*tasks = append(*tasks, t)
		}
	}
	return false, nil
}
