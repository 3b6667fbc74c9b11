package migrate

import "time"

// Step is one part of the downtime, as the host that did it saw it. Steps of
// one host follow one another; what is between the two hosts' clocks is on the
// wire.
type Step struct {
	Host string  `json:"host"` // "source" or "destination"
	Name string  `json:"name"`
	MS   float64 `json:"ms"`
}

// stopwatch notes how long steps take.
type stopwatch struct {
	host  string
	last  time.Time
	steps []Step
}

// start begins the first step.
func (w *stopwatch) start(host string) { *w = stopwatch{host: host, last: time.Now()} }

// step ends a step, and begins the next one. Without a start there are none.
func (w *stopwatch) step(name string) {
	if w.host == "" {
		return
	}
	now := time.Now()
	w.steps = append(w.steps, Step{w.host, name, millis(now.Sub(w.last))})
	w.last = now
}

// maxSteps bounds what a destination tells.
const maxSteps = 64
