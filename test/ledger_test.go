package test

import (
	"context"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vzkit/vzkit/bench/ledger"
)

// book is a ledger client of a container: it writes numbered records over one
// connection, whatever happens to the container.
type book struct {
	acked  atomic.Uint64
	stop   context.CancelFunc
	result chan ledger.Result
}

// keepBook opens the client's connection and begins to write.
func (c *container) keepBook(t testing.TB) *book {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	b := &book{stop: cancel, result: make(chan ledger.Result, 1)}
	dial := func(ctx context.Context) (net.Conn, error) { return c.connect(ctx, kvPort) }
	go func() {
		r, _ := ledger.Run(ctx, ledger.Config{
			Dial: dial, VerifyDial: func(context.Context) (net.Conn, error) { return dial(context.Background()) },
			OnAck: func(n uint64, _ time.Time) { b.acked.Store(n) },
		})
		b.result <- r
	}()
	t.Cleanup(cancel)
	b.goesOn(t)
	return b
}

// goesOn waits until more records are acknowledged.
func (b *book) goesOn(t testing.TB) {
	t.Helper()
	before := b.acked.Load()
	eventually(t, "records to be acknowledged", func() bool { return b.acked.Load() > before+100 || len(b.result) > 0 })
}

// isWhole ends the ledger and checks that the connection was one and the same
// to the end and that no acknowledged record is missing.
func (b *book) isWhole(t testing.TB) {
	t.Helper()
	b.goesOn(t)
	b.stop()
	r := <-b.result
	if err := r.Check(); err != nil {
		t.Errorf("ledger: %v\n%s", err, r)
	}
	t.Log(r)
}
