package transport

import (
	"io"
	"sync/atomic"
	"time"
)

// Busier is a writer that knows how long its link takes.
type Busier interface {
	// Busy is how many bytes the link has taken so far, and in what time: not
	// counting that in which the reader at the other end had no room.
	Busy() (bytes uint64, d time.Duration)
}

// Busy is that of the link, if it is a Busier; else all the time that writes
// took.
func (c *Conn) Busy() (bytes uint64, d time.Duration) { return c.busy.Busy() }

// timed is a Busier of any writer.
type timed struct {
	io.Writer
	bytes   atomic.Uint64
	writing atomic.Int64 // nanoseconds
}

func (t *timed) Write(p []byte) (int, error) {
	start := time.Now()
	n, err := t.Writer.Write(p)
	t.writing.Add(int64(time.Since(start)))
	t.bytes.Add(uint64(n)) //nolint:gosec // never negative
	return n, err
}

func (t *timed) Busy() (bytes uint64, d time.Duration) {
	return t.bytes.Load(), time.Duration(t.writing.Load())
}
