package dump

import "context"

// Tracker finds memory that can go before the container is frozen. Each round
// passes on the pages written since the round before; what the last one leaves
// is the frozen dump's.
type Tracker interface {
	// Name is shown to the user: "none", "soft-dirty", ….
	Name() string
	// Round passes the pages written since the previous round on to sink.
	Round(ctx context.Context, sink Sink) (Round, error)
	// Close ends tracking and leaves no trace in the tasks.
	Close() error
}

// Round tells what one round of a Tracker did.
type Round struct {
	Pages uint64 `json:"pages"` // passed on
	Dirty uint64 `json:"dirty"` // still to go: written since the round began
}

// NoTracker leaves all memory to the frozen dump. It works everywhere.
type NoTracker struct{}

// Name is "none".
func (NoTracker) Name() string { return "none" }

// Round passes nothing on.
func (NoTracker) Round(context.Context, Sink) (Round, error) { return Round{}, nil }

// Close does nothing.
func (NoTracker) Close() error { return nil }
