package pace

import (
	"context"
	"io"
	"sync"
	"time"

	"github.com/vzkit/vzkit/internal/fault"
	"golang.org/x/time/rate"
)

const (
	minBurst   = 4 << 10
	maxBurst   = 1 << 20
	burstsPerS = 50
)

// Limiter is a limit on bytes per second. It is for any number of goroutines.
type Limiter struct {
	mu      sync.Mutex
	tokens  *rate.Limiter // nil: no limit; guarded by mu
	changed chan struct{} // closed when tokens is replaced; guarded by mu
}

// NewLimiter returns a Limiter of so many bytes per second; 0 is no limit.
func NewLimiter(bytesPerSecond int64) *Limiter {
	l := &Limiter{changed: make(chan struct{})}
	l.SetLimit(bytesPerSecond)
	return l
}

// SetLimit changes the limit for everything that has not gone out; 0 lifts it.
func (l *Limiter) SetLimit(bytesPerSecond int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tokens = nil
	if bytesPerSecond > 0 {
		l.tokens = rate.NewLimiter(rate.Limit(bytesPerSecond), burst(bytesPerSecond))
		l.tokens.AllowN(time.Now(), l.tokens.Burst()) // one starts with nothing saved up
	}
	close(l.changed)
	l.changed = make(chan struct{})
}

func burst(bytesPerSecond int64) int {
	return int(min(max(bytesPerSecond/burstsPerS, minBurst), maxBurst))
}

// wait returns when up to n bytes may go out, and how many.
func (l *Limiter) wait(ctx context.Context, n int) (int, error) {
	for {
		m, delay, changed, cancel := l.reserve(n)
		if delay <= 0 {
			return m, nil
		}
		timer := time.NewTimer(delay)
		select {
		case <-timer.C:
			return m, nil
		case <-changed:
			timer.Stop()
		case <-ctx.Done():
			timer.Stop()
			cancel()
			return 0, fault.New(fault.Interrupted, "wait for the rate limit: %w", context.Cause(ctx))
		}
	}
}

// reserve takes the tokens of up to n bytes, which may go out after delay
// unless the limit changes before.
func (l *Limiter) reserve(n int) (m int, delay time.Duration, changed <-chan struct{}, cancel func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.tokens == nil {
		return n, 0, nil, nil
	}
	m = min(n, l.tokens.Burst())
	r := l.tokens.ReserveN(time.Now(), m)
	return m, r.Delay(), l.changed, r.Cancel
}

// Writer writes at the pace of a Limiter.
type Writer struct {
	ctx     context.Context
	w       io.Writer
	limiter *Limiter
}

// NewWriter returns a Writer to w; its waits end with ctx.
func NewWriter(ctx context.Context, w io.Writer, l *Limiter) *Writer {
	return &Writer{ctx, w, l}
}

// Write writes b in steps, each when its time has come.
func (w *Writer) Write(b []byte) (n int, err error) {
	for len(b) > 0 {
		step, err := w.limiter.wait(w.ctx, len(b))
		if err != nil {
			return n, err
		}
		m, err := w.w.Write(b[:step])
		n += m
		if err != nil {
			return n, err
		}
		b = b[step:]
	}
	return n, nil
}
