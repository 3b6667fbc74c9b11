package probe

import "time"

// gaps finds the longest time between two events.
type gaps struct {
	begun   bool
	last    time.Duration
	longest time.Duration
	from    time.Duration // start of the longest
}

// event notes an event, by CLOCK_MONOTONIC.
func (g *gaps) event(at time.Duration) {
	if g.begun && at-g.last > g.longest {
		g.longest, g.from = at-g.last, g.last
	}
	g.begun, g.last = true, at
}

// wall is when the longest began, as far as the wall clock was not set since.
func (g *gaps) wall() time.Time { return time.Now().Add(g.from - monotonic()) }
