package lifecycle

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vzkit/vzkit/internal/fault"
)

// Lock is held while a command changes a container. The kernel holds it, so
// none is left behind by a process that dies.
type Lock struct{ file *os.File }

// Lock takes the lock of container ctid for a command; the name of the command
// and its pid are shown to whoever finds it taken. It does not wait.
func (h *Host) Lock(ctid uint32, command string) (*Lock, error) {
	dir := h.global("LOCKDIR", filepath.Join(h.Lib, "lock"), 0)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fault.New(fault.Other, "make lock directory: %w", err)
	}
	path := filepath.Join(dir, fmt.Sprintf("%d.lck", ctid))
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fault.New(fault.Other, "open lock: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		defer f.Close()
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fault.New(fault.Other, "lock %q: %w", path, err)
		}
		return nil, fault.New(fault.Locked, "container %d is locked by %s", ctid, holder(f)).
			WithHint("Wait for that command to end, then try again.")
	}
	text := fmt.Sprintf("%d\n%s since %s\n", os.Getpid(), command, time.Now().Format(time.TimeOnly))
	if err := errors.Join(f.Truncate(0), writeAt(f, text)); err != nil {
		f.Close()
		return nil, fault.New(fault.Other, "write lock: %w", err)
	}
	return &Lock{f}, nil
}

// locked does something to the container under its lock, if it is this host's.
func (c *Container) locked(command string, do func() error) error {
	lock, err := c.host.Lock(c.ID, command)
	if err != nil {
		return err
	}
	defer lock.Unlock()
	if err := c.CheckOwned(); err != nil {
		return err
	}
	if err := c.settle(); err != nil {
		return err
	}
	return do()
}

func writeAt(f *os.File, text string) error {
	_, err := f.WriteAt([]byte(text), 0)
	return err
}

// holder describes who holds the lock: `vzmigrate since 12:00:01 (pid 4711)`.
func holder(f *os.File) string {
	text := make([]byte, 256)
	n, _ := f.ReadAt(text, 0)
	pid, command, found := strings.Cut(strings.TrimSpace(string(text[:n])), "\n")
	if !found {
		return "another command"
	}
	return fmt.Sprintf("%s (pid %s)", command, pid)
}

// Unlock releases the lock. Unlocking twice is fine.
func (l *Lock) Unlock() {
	if l != nil && l.file != nil {
		l.file.Close()
		l.file = nil
	}
}
