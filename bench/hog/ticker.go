package hog

import (
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	tickEvery   = time.Millisecond
	sampleEvery = 50 * time.Millisecond
	maxSamples  = 1 << 13 // nearly seven minutes
)

// Gap is a time in which the ticker did not run.
type Gap struct {
	At time.Duration `json:"at"` // its start, by CLOCK_REALTIME
	NS time.Duration `json:"ns"` // its length, by the clock in question
}

// Sample is how many writes were done at a time, by CLOCK_REALTIME.
type Sample struct {
	At   time.Duration `json:"at"`
	Done uint64        `json:"done"`
}

// ticker notes what happens to time, on a thread of its own.
type ticker struct {
	done func() uint64 // writes

	mu        sync.Mutex
	realtime  Gap // the longest
	monotonic Gap
	samples   []Sample
}

func (t *ticker) run() {
	runtime.LockOSThread()
	real, mono := now(unix.CLOCK_REALTIME), now(unix.CLOCK_MONOTONIC)
	var sampled time.Duration
	for {
		sleep(tickEvery)
		r, m := now(unix.CLOCK_REALTIME), now(unix.CLOCK_MONOTONIC)
		t.tick(Gap{real, r - real}, Gap{real, m - mono})
		if r-sampled >= sampleEvery {
			t.sample(r)
			sampled = r
		}
		real, mono = r, m
	}
}

func (t *ticker) tick(real, mono Gap) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if real.NS > t.realtime.NS {
		t.realtime = real
	}
	if mono.NS > t.monotonic.NS {
		t.monotonic = mono
	}
}

func (t *ticker) sample(at time.Duration) {
	done := t.done()
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.samples) < maxSamples {
		t.samples = append(t.samples, Sample{at, done})
	}
}

func (t *ticker) reset() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.realtime, t.monotonic, t.samples = Gap{}, Gap{}, t.samples[:0]
}

func (t *ticker) fill(r *Report) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r.Realtime, r.Monotonic = t.realtime, t.monotonic
	r.Samples = append([]Sample{}, t.samples...)
}
