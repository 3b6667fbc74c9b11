// Package ledger proves that a server lived through something, a live
// migration above all, without harm to one TCP client, and measures how long
// that client was kept waiting.
//
// It opens one connection, once, and writes numbered, checksummed records on
// it at a fixed interval, open loop: a record is sent when it is due, whether
// or not earlier ones were acknowledged, and its latency counts from when it
// was due. A pause therefore shows in the latency of every record that fell
// into it (no coordinated omission). Each record is read back at once, some
// older ones later, and all of them at the end: on the same connection, then
// on a fresh one.
//
// Memory stays bounded however long it runs, because the content of record n
// follows from the run's name, its start and n, and writes on one connection
// are acknowledged in order: the highest acknowledged n says it all.
//
// The client writes to the connection itself (package resp): client libraries
// reconnect silently, which would hide a reset.
package ledger

import (
	"context"
	"crypto/rand"
	"net"
	"strings"
	"time"

	"github.com/vzkit/vzkit/bench/resp"
	"github.com/vzkit/vzkit/internal/fault"
)

// The defaults of Config.
const (
	DefaultInterval = time.Millisecond
	DefaultPatience = 30 * time.Second
)

// The limits of Config.Interval.
const (
	minInterval = 10 * time.Microsecond
	maxInterval = time.Minute
)

// Config says how a ledger is kept. Only Dial is required.
type Config struct {
	Dial       func(context.Context) (net.Conn, error) // called once
	VerifyDial func(context.Context) (net.Conn, error) // called once, for the second verification; nil: none
	Name       string                                  // of the run, part of the keys; empty: a random one
	Interval   time.Duration                           // between records; 0: DefaultInterval
	Patience   time.Duration                           // for replies after the last record; 0: DefaultPatience

	// Marks: called in order, each from one goroutine, and must not block.
	OnAck    func(n uint64, at time.Time) // record n is acknowledged
	OnPause  func(Pause)                  // a pause is over
	OnStatus func(Status)                 // once a second
}

// Run keeps a ledger until ctx ends, then verifies it. The error is that of
// the run: no connection, a connection lost, a write refused, verification cut
// short. It is in the Result as well. Records that are missing are no error of
// the run: Result.Check finds them.
func Run(ctx context.Context, cfg Config) (Result, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return notRun(err), err
	}
	conn, err := cfg.Dial(ctx)
	if err != nil {
		err = fault.Wrap(fault.Connect, err)
		return notRun(err), err
	}
	defer conn.Close()
	s := &session{
		cfg:      cfg,
		client:   resp.NewClient(conn),
		journal:  journal{name: cfg.Name, start: time.Now(), interval: cfg.Interval},
		inflight: make(chan struct{}, window),
	}
	s.tally = newTally(s.journal.start, cfg.Interval)
	return s.run(ctx)
}

func (c Config) withDefaults() (Config, error) {
	if c.Interval == 0 {
		c.Interval = DefaultInterval
	}
	if c.Patience == 0 {
		c.Patience = DefaultPatience
	}
	if c.Name == "" {
		c.Name = strings.ToLower(rand.Text()[:10])
	}
	if c.Interval < minInterval || c.Interval > maxInterval {
		return c, fault.New(fault.BadValue, "interval %v out of range", c.Interval).
			WithHint("Give an interval from %v to %v.", minInterval, maxInterval)
	}
	if strings.ContainsAny(c.Name, " :\r\n") || len(c.Name) > 64 {
		return c, fault.New(fault.BadValue, "run name %.80q unusable", c.Name).
			WithHint("Give at most 64 characters without spaces and colons.")
	}
	return c, nil
}
