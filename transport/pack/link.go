package pack

import (
	"sync"
	"time"
)

// Link measures how long a byte takes on a connection, from the time for which
// that is busy. It is used by several goroutines.
//
// Writes into empty buffers take no time and tell nothing, so the measure is a
// mean that forgets, and gets faster by a twentieth a time only: a codec that
// leaves the link idle, and so makes it look fast, is then not given up at once.
type Link struct {
	mu      sync.Mutex
	bytes   float64 // the last ones, forgotten bit by bit
	seconds float64
	cost    float64 // seconds per byte, 0 before the first write

	sawBytes uint64 // of all, the last time
	sawBusy  time.Duration
}

const (
	linkMemory = 0.8
	linkSpeed  = 0.95
	leastSeen  = 64 << 10 // bytes; fewer tell nothing
)

// Saw notes how many bytes a connection has taken so far, and in what time
// ([transport.Busier]).
func (l *Link) Saw(bytes uint64, busy time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n, d := bytes-l.sawBytes, busy-l.sawBusy
	if n < leastSeen {
		return
	}
	l.sawBytes, l.sawBusy = bytes, busy
	l.wrote(int(n), d) //nolint:gosec // few bytes
}

// wrote notes that writing so many bytes took d.
func (l *Link) wrote(bytes int, d time.Duration) {
	l.bytes = l.bytes*linkMemory + float64(bytes)
	l.seconds = l.seconds*linkMemory + d.Seconds()
	l.cost = max(l.seconds/l.bytes, l.cost*linkSpeed)
}

// perByte is in seconds.
func (l *Link) perByte() float64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cost
}
