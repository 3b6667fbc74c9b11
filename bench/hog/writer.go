package hog

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// writer writes pages of its memory at a pace, on a thread of its own.
type writer struct {
	memory
	pace   float64       // pages a second
	period time.Duration // between two turns

	mu   sync.Mutex    // held for a turn, and to check the memory
	done atomic.Uint64 // writes
	rand uint64
}

// maxCatchUp is the delay that a writer makes up for. What it was kept from
// doing beyond that is lost, as it is to those who wait for work to be done.
const maxCatchUp = 10 * time.Millisecond

// run writes for ever.
func (w *writer) run() {
	runtime.LockOSThread()
	last := now(unix.CLOCK_MONOTONIC)
	var credit float64
	for {
		sleep(w.period)
		at := now(unix.CLOCK_MONOTONIC)
		credit += w.pace * min(at-last, w.period+maxCatchUp).Seconds()
		last = at
		credit -= float64(w.turn(int(credit)))
	}
}

// turn writes n pages chosen at random and returns n.
func (w *writer) turn(n int) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	for range n {
		w.rand += step
		w.write(mix(w.rand) % w.pages())
		w.done.Add(1)
	}
	return n
}

func (w *writer) verify() (bad, versions, done uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	bad, versions = w.check()
	return bad, versions, w.done.Load()
}

// now reads a clock.
func now(clock int32) time.Duration {
	var ts unix.Timespec
	_ = unix.ClockGettime(clock, &ts) // cannot fail for a clock that is there
	return time.Duration(ts.Nano())
}

// sleep sleeps without Go's timers, which are later.
func sleep(d time.Duration) {
	ts := unix.NsecToTimespec(int64(d))
	_ = unix.Nanosleep(&ts, nil) // a signal wakes early, which does no harm
}
