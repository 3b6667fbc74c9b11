package ledger

import (
	"context"
	"time"

	"golang.org/x/sys/unix"
)

// coarse is how exactly Go's timers are relied upon: the runtime waits in
// whole milliseconds, which is as long as the default interval.
const coarse = 3 * time.Millisecond

// sleepUntil sleeps until at, to within the kernel's timer slack of 50 µs, and
// returns true, or false as soon as ctx ends (at most coarse later).
func sleepUntil(ctx context.Context, at time.Time) bool {
	if long := time.Until(at) - coarse; long > 0 {
		timer := time.NewTimer(long)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return false
		}
	}
	for rest := time.Until(at); rest > 0; rest = time.Until(at) {
		ts := unix.NsecToTimespec(rest.Nanoseconds())
		unix.Nanosleep(&ts, nil) // a signal cuts it short: the loop goes on
	}
	return ctx.Err() == nil
}
