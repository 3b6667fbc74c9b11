package dump

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/vzkit/vzkit/dump/describe"
	"github.com/vzkit/vzkit/dump/track"
	"github.com/vzkit/vzkit/internal/criu"
	"github.com/vzkit/vzkit/internal/criu/preload"
	"github.com/vzkit/vzkit/internal/undo"
)

// muchMemory is what a process must have of it, in bytes, for a copy of its
// smaps to be worth while: reading that much takes the kernel 0.8 ms.
const muchMemory = 64 << 20

// view is what CRIU is shown in a described dump.
type view struct {
	describer *describe.Describer
	copies    []*describe.Copy
	count     *os.File // of connections in the network namespace, nil if it cannot be told
	undo      undo.Stack
}

// newView makes a view for the dump, takes copies for the processes, and adds
// to the options what CRIU needs to see it.
func newView(c Config, pids []int, o *criu.StartOptions) (*view, error) {
	v := &view{}
	if err := v.open(c, pids, o); err != nil {
		v.close()
		return nil, err
	}
	return v, nil
}

func (v *view) open(c Config, pids []int, o *criu.StartOptions) (err error) {
	if v.describer, err = describe.New(); err != nil {
		return err
	}
	v.undo.Push("describer", func() error { v.describer.Close(); return nil })
	server, err := preload.Serve(v.describer.Answer)
	if err != nil {
		return err
	}
	v.undo.Push("answers", func() error { server.Close(); return nil })
	o.Calls, o.Preload = server.Theirs, filepath.Join(c.Dir, "answers.so")
	if err := preload.WriteFile(o.Preload); err != nil {
		return err
	}
	if err := v.copyAll(c.Dir, pids, o); err != nil {
		return err
	}
	return v.countConnections(c.Init, o)
}

func (v *view) close() { _ = v.undo.Run() }

// copyAll takes copies of what large processes have for smaps. They are
// mounted where only CRIU sees them.
func (v *view) copyAll(dir string, pids []int, o *criu.StartOptions) error {
	for _, pid := range pids {
		if resident(pid) < muchMemory {
			continue
		}
		c, err := describe.TakeCopy(pid, filepath.Join(dir, fmt.Sprintf("smaps-%d", pid)))
		if ended(err) {
			continue
		}
		if err != nil {
			return fmt.Errorf("copy smaps of process %d: %w", pid, err)
		}
		v.copies = append(v.copies, c)
		o.Binds = append(o.Binds, criu.Bind{From: c.File, To: fmt.Sprintf("/proc/%d/smaps", pid)})
	}
	return nil
}

// ended tells errors of processes that are no more.
func ended(err error) bool { return errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) }

// resident is how much memory a process has, in bytes, 0 if it has ended.
func resident(pid int) uint64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	fields := strings.Fields(string(text))
	if err != nil || len(fields) < 2 {
		return 0
	}
	pages, _ := strconv.ParseUint(fields[1], 10, 64)
	return pages * PageSize
}

// countConnections prepares for telling CRIU that the container's network
// namespace has no connections, if the frozen container's will have none.
func (v *view) countConnections(init int, o *criu.StartOptions) error {
	if v.count = connectionCount(init); v.count == nil {
		return nil
	}
	v.undo.Push("count", v.count.Close)
	for range lists {
		socket, end, err := describe.EmptySocket()
		if err != nil {
			return err
		}
		o.Files = append(o.Files, socket)
		v.undo.Push("socket", socket.Close)
		v.undo.Push("socket", end.Close)
	}
	return nil
}

// CRIU asks for so many lists of connections. Its descriptors for them follow
// that of the page server.
const (
	lists     = 2
	firstList = criu.FirstFile + 1
)

// connectionCount opens the number of connections in the network namespace of
// a process, nil where the kernel tracks none.
func connectionCount(pid int) *os.File {
	result := make(chan *os.File)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
		if err != nil {
			result <- nil
			return
		}
		defer ns.Close()
		var f *os.File
		if unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET) == nil {
			f, _ = os.Open("/proc/sys/net/netfilter/nf_conntrack_count")
		}
		result <- f
	}()
	return <-result
}

// show begins to hide what is in the layout of the frozen container, after
// making sure that the copies still hold.
func (v *view) show(l *track.Layout) error {
	for _, c := range v.copies {
		if _, err := c.Refresh(); err != nil && !ended(err) {
			return fmt.Errorf("look at process %d: %w", c.PID, err)
		}
	}
	v.describer.Hide(l)
	if v.connections() == 0 {
		v.describer.Empty(firstList, firstList+1)
	}
	return nil
}

// connections is how many there are, or -1.
func (v *view) connections() int {
	if v.count == nil {
		return -1
	}
	text, err := io.ReadAll(v.count)
	n, nerr := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || nerr != nil {
		return -1
	}
	return n
}

func (v *view) check() error {
	for _, c := range v.copies {
		if err := c.Check(); err != nil && !ended(err) {
			return err
		}
	}
	return nil
}
