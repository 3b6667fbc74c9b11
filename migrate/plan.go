package migrate

import (
	"time"

	"github.com/vzkit/vzkit/dump/track"
	"github.com/vzkit/vzkit/transport"
)

// MemoryOptions say how memory is moved.
type MemoryOptions struct {
	Tracker       string        `json:"tracker"`        // "auto", "none" or what dump/track has
	Dump          string        `json:"dump"`           // "auto", or a mode of package dump
	Codec         string        `json:"codec"`          // of pages on the wire: "auto", "none", "lz4", "zstd"
	DowntimeLimit time.Duration `json:"downtime_limit"` // the container is frozen once its downtime is predicted to be below
	MaxRounds     int           `json:"max_rounds"`     // of pre-copy; then it is frozen whatever is predicted
	MaxTime       time.Duration `json:"max_time"`       // of pre-copy; a move that takes longer is called off
	AutoConverge  bool          `json:"auto_converge"`  // take CPU time from a container that writes too fast
	DeltaCache    uint64        `json:"delta_cache"`    // bytes of sent pages kept at the source, for deltas
	Streams       int           `json:"streams"`        // connections that carry pages
	Verify        bool          `json:"verify"`         // compare all memory with what was sent
}

// DefaultMemory is what users get who ask for nothing.
var DefaultMemory = MemoryOptions{
	Tracker: "auto", Dump: "auto", Codec: "auto", DowntimeLimit: 100 * time.Millisecond, MaxRounds: 30,
	MaxTime: 10 * time.Minute, DeltaCache: 64 << 20, Streams: 1,
}

// FileCodec is the codec of files and images.
func (o MemoryOptions) FileCodec() (transport.Codec, error) {
	if o.Codec == "auto" {
		return transport.CodecZstd, nil
	}
	return transport.ParseCodec(o.Codec)
}

// Decision is what follows from a round of pre-copy.
type Decision string

// The decisions. All but the first two end pre-copy; what is written while the
// dump is made ready goes over in one round more, the last.
const (
	AnotherRound Decision = "another round"
	Throttle     Decision = "throttle"          // and another round
	UnderLimit   Decision = "under the limit"   // the predicted downtime is
	NoProgress   Decision = "no more progress"  // the rounds have stopped to shrink
	OutOfRounds  Decision = "no more rounds"    // the allowed number is used up
	NothingLeft  Decision = "nothing left over" // no page was written meanwhile
	LastRound    Decision = "freeze"            // of the last round
)

// Rounds that do not shrink what is left by a tenth count as stalled; so many
// of them in a row are a local minimum. One may be chance.
const (
	progress = 0.9
	patience = 3
)

// plan decides when pre-copy ends: when the downtime it predicts from what it
// has measured so far is short enough, or will not become shorter.
type plan struct {
	limit     time.Duration
	maxRounds int
	throttle  bool          // the container may be throttled, still
	base      time.Duration // of the downtime: what does not depend on memory
	rounds    int
	least     uint64 // fewest pages left over so far
	stalled   int    // rounds since then
	before    uint64 // pages left over by the round before
	copied    uint64 // pages in the rounds so far
	spent     time.Duration
}

func newPlan(o MemoryOptions, base time.Duration) *plan {
	return &plan{limit: o.DowntimeLimit, maxRounds: o.MaxRounds, throttle: o.AutoConverge, base: base, least: 1<<64 - 1, before: 1<<64 - 1}
}

// predict is the downtime if the container were frozen now, with dirty pages
// still to go: the base and their copying at the measured rate. The last scan
// and copy run beside the dump, so this is on the safe side.
func (p *plan) predict(dirty uint64) time.Duration {
	if p.copied == 0 {
		return p.base
	}
	return p.base + time.Duration(float64(p.spent)*float64(dirty)/float64(p.copied))
}

// after decides what follows a round that took so long and left dirty pages.
func (p *plan) after(r track.Round, took time.Duration, dirty uint64) Decision {
	p.rounds++
	if r.Pages >= minSample || p.copied == 0 { // a round of few pages is all latency
		p.copied, p.spent = max(r.Pages, 1), took
	}
	p.stalled++
	if float64(dirty) < progress*float64(p.least) {
		p.stalled = 0
	}
	p.least = min(p.least, dirty)
	cheap := p.pays(dirty)
	p.before = dirty
	switch {
	case dirty == 0:
		return NothingLeft
	case p.predict(dirty) <= p.limit && (!cheap || p.rounds >= p.maxRounds):
		return UnderLimit
	case p.rounds >= p.maxRounds:
		return OutOfRounds
	case p.stalled < patience:
		return AnotherRound
	case p.throttle:
		p.stalled, p.least = 0, dirty
		return Throttle
	}
	return NoProgress
}

// pays tells whether another round is worth while though the downtime would be
// short enough: copying is still a good part of it, each round leaves much less
// than the one before, and it takes no longer than the container may stand still.
func (p *plan) pays(dirty uint64) bool {
	copying := p.predict(dirty) - p.base
	return copying > p.base/8 && copying < p.limit && float64(dirty) < 0.7*float64(p.before)
}

// minSample is how many pages a round must copy for its rate to be believed.
const minSample = 1024

// ends tells whether pre-copy is over.
func (d Decision) ends() bool { return d != AnotherRound && d != Throttle }
