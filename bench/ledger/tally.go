package ledger

import (
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Pause is a time without acknowledgements, from one to the next.
type Pause struct {
	At time.Time `json:"at"` // wall clock at its start
	MS float64   `json:"ms"` // length in milliseconds
}

const (
	pauseFrom = 20 * time.Millisecond // shorter ones are not listed
	maxPauses = 4096                  // listed at most
	maxMicros = int64(time.Hour / time.Microsecond)
)

// tally is what a run adds up.
type tally struct {
	interval   time.Duration
	acked      uint64
	lastAck    time.Time
	longest    Pause
	pauses     []Pause
	wrongReads uint64
	latency    *hdrhistogram.Histogram // microseconds
}

func newTally(start time.Time, interval time.Duration) *tally {
	return &tally{interval: interval, lastAck: start, latency: hdrhistogram.New(1, maxMicros, 3)}
}

// ack counts record n, acknowledged at at and due at due. It returns the pause
// that this ends if it is one to be listed.
func (t *tally) ack(n uint64, at, due time.Time) *Pause {
	t.acked = n
	t.latency.RecordValue(min(max(at.Sub(due).Microseconds(), 1), maxMicros))
	pause := t.silence(at)
	t.lastAck = at
	return pause
}

// silence counts the time from the last acknowledgement to until. With an
// interval near pauseFrom or above it, a pause to be listed is one that made
// at least one record late.
func (t *tally) silence(until time.Time) *Pause {
	gap := until.Sub(t.lastAck)
	pause := Pause{At: t.lastAck.UTC().Round(0), MS: milliseconds(gap)}
	if pause.MS > t.longest.MS {
		t.longest = pause
	}
	if gap < max(pauseFrom, 2*t.interval) {
		return nil
	}
	if len(t.pauses) < maxPauses {
		t.pauses = append(t.pauses, pause)
	}
	return &pause
}

// milliseconds is d with microseconds as decimals.
func milliseconds(d time.Duration) float64 {
	return float64(d.Round(time.Microsecond)) / float64(time.Millisecond)
}
