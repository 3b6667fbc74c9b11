package hosts

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/internal/lab"
)

// claimFile is in a lab that was brought up for a measurement, locked as long
// as the program runs. It goes with the lab.
func claimFile(dir string) string { return filepath.Join(dir, Alpha, "measured") }

// mayTake refuses a directory in which a lab of the user's own is, or a
// measurement. What one left that was killed is no reason.
func mayTake(dir string) error {
	left, err := os.Open(claimFile(dir))
	if err == nil {
		defer left.Close()
		if unix.Flock(int(left.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			return nil
		}
		return fault.New(fault.Running, "a measurement runs in %q", dir).WithHint("Choose another directory with VZLAB_DIR.")
	}
	if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTDIR) {
		return fmt.Errorf("lab directory: %w", err)
	}
	if _, err := lab.Open(dir); err == nil && dir != DefaultDir {
		return fault.New(fault.Running, "a lab is in %q", dir).
			WithHint("Choose another directory with VZLAB_DIR, or take it down with: vzlab down")
	}
	return nil
}

// claim marks the lab that is to be in a directory.
func claim(dir string) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(claimFile(dir)), 0o755); err != nil {
		return nil, fmt.Errorf("lab directory: %w", err)
	}
	file, err := os.OpenFile(claimFile(dir), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lab directory: %w", err)
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		file.Close()
		return nil, fmt.Errorf("lock %q: %w", file.Name(), err)
	}
	return file, nil
}
