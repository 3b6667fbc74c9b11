package hog

import (
	"context"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/vzkit/vzkit/internal/fault"
)

// Config says what a hog does.
type Config struct {
	Memory   uint64  // bytes
	Content  Content // of the memory
	Rate     float64 // bytes of pages written a second, all writers together
	Writers  int     // threads that write, each a part of the memory
	Children int     // processes forked from this one, which share its memory at first
}

const (
	maxMemory   = 1 << 40
	maxWriters  = 4096
	maxChildren = pageSize / 64 // as many as have a place on the board
)

// Check refuses what cannot be done.
func (c Config) Check() error {
	if err := c.Content.Check(); err != nil {
		return err
	}
	switch {
	case c.Memory < pageSize || c.Memory > maxMemory:
		return fault.New(fault.BadValue, "memory of %d bytes out of range", c.Memory).WithHint("Give a page to 1 TiB.")
	case c.Rate < 0 || c.Rate > 1e12:
		return fault.New(fault.BadValue, "rate %g out of range", c.Rate).WithHint("Give 0 or more bytes a second.")
	case c.Writers < 0 || c.Writers > maxWriters || uint64(c.Writers) > c.Memory/pageSize:
		return fault.New(fault.BadValue, "number of writers %d out of range", c.Writers).
			WithHint("Give one for each page at most, and no more than %d.", maxWriters)
	case c.Children < 0 || c.Children > maxChildren:
		return fault.New(fault.BadValue, "number of children %d out of range", c.Children).
			WithHint("Give no more than %d.", maxChildren)
	case c.Content != Random && c.Writers+c.Children > 0:
		return fault.New(fault.BadValue, "content %q cannot be written", string(c.Content)).
			WithHint("Leave out writers and children, or take random content.")
	}
	return nil
}

// hog is a running one.
type hog struct {
	memory  memory
	writers []*writer
	family  *family
	ticker  *ticker
}

// Run fills the memory, then serves until ctx ends. It turns the garbage
// collector of this process off.
func Run(ctx context.Context, host string, c Config) error {
	if err := c.Check(); err != nil {
		return err
	}
	debug.SetGCPercent(-1)
	runtime.GOMAXPROCS(max(runtime.NumCPU(), 8)) // threads that write keep no other from running
	h, err := start(c)
	if err != nil {
		return err
	}
	return h.serve(ctx, host)
}

// start begins everything but the service.
func start(c Config) (*hog, error) {
	m, err := newMemory(c.Memory, c.Content)
	if err != nil {
		return nil, err
	}
	h := &hog{memory: m, ticker: &ticker{samples: make([]Sample, 0, maxSamples)}}
	if h.family, err = raise(m, c.Children); err != nil {
		return nil, err
	}
	h.addWriters(c)
	h.ticker.done = h.done
	go h.ticker.run()
	for _, w := range h.writers {
		go w.run()
	}
	return h, nil
}

// addWriters gives each of many writers few turns: together they are to wake
// up some thousand times a second at most.
func (h *hog) addWriters(c Config) {
	if c.Writers == 0 {
		return
	}
	period := min(max(tickEvery, time.Duration(c.Writers)*200*time.Microsecond), 100*time.Millisecond)
	for i, part := range h.memory.parts(uint64(c.Writers)) {
		h.writers = append(h.writers, &writer{
			memory: part, period: period, rand: uint64(i),
			pace: c.Rate / pageSize / float64(c.Writers),
		})
	}
}

func (h *hog) done() (sum uint64) {
	for _, w := range h.writers {
		sum += w.done.Load()
	}
	return sum
}

// verify checks all memory. Each writer stands still while its part is read.
func (h *hog) verify(r *Report) {
	r.Pages = h.memory.pages()
	if len(h.writers) == 0 {
		r.Bad, r.Versions = h.memory.check()
	}
	for _, w := range h.writers {
		bad, versions, done := w.verify()
		r.Bad, r.Versions, r.Done = r.Bad+bad, r.Versions+versions, r.Done+done
	}
	h.family.verify(r)
}
