package template

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vzkit/vzkit/internal/fault"
)

const (
	shared    = unix.LOCK_SH
	exclusive = unix.LOCK_EX
)

// lock takes a flock(2) on directory dir and returns its release. It waits
// until ctx ends.
func lock(ctx context.Context, dir string, how int) (unlock func(), err error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("open template dir: %w", err)
	}
	for {
		err := unix.Flock(int(d.Fd()), how|unix.LOCK_NB)
		if err == nil {
			return func() { d.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			d.Close()
			return nil, fmt.Errorf("lock %q: %w", dir, err)
		}
		select {
		case <-ctx.Done():
			d.Close()
			return nil, fault.Ended(ctx)
		case <-time.After(50 * time.Millisecond):
		}
	}
}
