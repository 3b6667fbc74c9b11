package migrate

import (
	"time"

	"github.com/vzkit/vzkit/lifecycle/cgroup"
)

// brake takes CPU time from a container that writes faster than its memory
// can be sent, a fifth of what it uses a step (--auto-converge).
type brake struct {
	group   *cgroup.Group
	at      time.Time
	used    time.Duration // CPU time at that moment
	cpus    float64       // in force, 0 for no limit
	restore func() error
}

// look begins to measure how much the container uses.
func (b *brake) look() {
	b.at = time.Now()
	b.used, _ = b.group.CPUTime() // an error shows again in step
}

// step takes a fifth of what the container has used since look.
func (b *brake) step() error {
	used, err := b.group.CPUTime()
	if err != nil {
		return err
	}
	cpus := float64(used-b.used) / float64(time.Since(b.at))
	if b.cpus > 0 {
		cpus = min(cpus, b.cpus)
	}
	b.cpus = max(cpus*4/5, 0.02)
	restore, err := b.group.LimitCPU(b.cpus)
	if err == nil && b.restore == nil {
		b.restore = restore
	}
	return err
}

// lift gives the container its CPU time back.
func (b *brake) lift() error {
	if b.restore == nil {
		return nil
	}
	return b.restore()
}
