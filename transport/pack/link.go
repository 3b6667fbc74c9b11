package pack

import (
	"sync"
	"time"
)

// Link measures how long a byte takes on a connection, from the time that
// writes take. It is used by several goroutines.
//
// Writes into empty buffers take no time and tell nothing, so the measure is a
// mean that forgets, and gets faster by a twentieth a time only: a codec that
// leaves the link idle, and so makes it look fast, is then not given up at once.
type Link struct {
	mu      sync.Mutex
	bytes   float64 // the last ones, forgotten bit by bit
	seconds float64
	cost    float64 // seconds per byte, 0 before the first write
}

const (
	linkMemory = 0.8
	linkSpeed  = 0.95
)

// Wrote notes that writing so many bytes took d.
func (l *Link) Wrote(bytes int, d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
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
