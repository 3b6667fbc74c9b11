package migrate

import (
	"testing"
	"time"

	"github.com/vzkit/vzkit/dump/track"
)

// simulate lets a container write rate pages a second while pages go out at
// speed pages a second, and returns the decision that ended pre-copy.
func simulate(o MemoryOptions, total, rate, speed uint64) (last Decision, rounds, throttled int) {
	p := newPlan(o, 30*time.Millisecond)
	for left := total; ; {
		took := time.Duration(float64(left) / float64(speed) * float64(time.Second))
		dirty := min(uint64(float64(rate)*took.Seconds()), total)
		last = p.after(track.Round{Pages: left}, took, dirty)
		rounds++
		if last == Throttle {
			throttled++
			rate = rate * 8 / 10
		}
		if last.ends() {
			return last, rounds, throttled
		}
		left = dirty
	}
}

func TestPlan(t *testing.T) {
	const gib = 1 << 18 // pages
	auto := DefaultMemory
	auto.AutoConverge = true
	tight := DefaultMemory
	tight.MaxRounds, tight.DowntimeLimit = 2, 31*time.Millisecond
	for _, c := range []struct {
		name               string
		o                  MemoryOptions
		total, rate, speed uint64
		want               Decision
		most               int // rounds
	}{
		{"idle", DefaultMemory, gib, 0, gib, NothingLeft, 1},
		{"slow writer", DefaultMemory, gib, gib / 10, gib, UnderLimit, 4},
		{"writer at half the speed", DefaultMemory, gib, gib / 2, gib, UnderLimit, 9},
		{"writer faster than the link", DefaultMemory, gib, 2 * gib, gib, NoProgress, patience + 2},
		{"limit that cannot be met", tight, gib, gib / 2, gib, OutOfRounds, 2},
		{"throttled until it fits", auto, gib, 2 * gib, gib, UnderLimit, 29},
	} {
		t.Run(c.name, func(t *testing.T) {
			last, rounds, throttled := simulate(c.o, c.total, c.rate, c.speed)
			if last != c.want || rounds > c.most {
				t.Errorf("ended with %q after %d rounds, want %q within %d", last, rounds, c.want, c.most)
			}
			if (throttled > 0) != c.o.AutoConverge {
				t.Errorf("throttled %d times", throttled)
			}
		})
	}
}

func TestPredictBeforeAnythingIsMeasured(t *testing.T) {
	p := newPlan(DefaultMemory, time.Second)
	if got := p.predict(1 << 20); got != time.Second {
		t.Errorf("predicted %v, want the base alone", got)
	}
}
