package downtime

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/vzkit/vzkit/bench/hog"
	"github.com/vzkit/vzkit/bench/probe"
)

// readyIn is how long a container may take to be ready.
const readyIn = 2 * time.Minute

// runs are the moves of one workload by one mover, to and fro.
type runs struct {
	rig      *rig
	workload workload
	mover    mover
	count    int

	client hog.Client
	load   load
	host   string // where the container is
}

// Run is what was seen of one move. Gaps are milliseconds, rates pages a second.
type Run struct {
	Workload  string  `json:"workload"`
	Mover     string  `json:"mover"`
	Number    int     `json:"number"`
	Outside   float64 `json:"outside_ms"`    // longest time without an answer
	RTT       float64 `json:"rtt_ms"`        // longest time from a message to its answer
	Late      float64 `json:"late_ms"`       // longest delay of the client outside itself
	Inside    float64 `json:"inside_ms"`     // longest gap of CLOCK_REALTIME
	Monotonic float64 `json:"monotonic_ms"`  // longest gap of CLOCK_MONOTONIC
	Before    float64 `json:"rate_before"`   // of writes, in the second before the move
	During    float64 `json:"rate_during"`   // from the move's start to the gap
	After     float64 `json:"rate_after"`    // in the second after the gap
	Container uint64  `json:"container"`     // memory that left the source with it
	SrcPeak   uint64  `json:"src_peak"`      // memory of the source above what it took before, at most
	DstPeak   uint64  `json:"dst_peak"`      // likewise of the destination
	Unique    uint64  `json:"unique_bytes"`  // of pages that the hog holds
	Dirtied   uint64  `json:"dirtied_bytes"` // of pages that it wrote during the move
	account
}

// measure starts the workload, moves it and removes it.
func (s *runs) measure(ctx context.Context, progress io.Writer) (all []Run, err error) {
	s.client.Dial = func(ctx context.Context) (net.Conn, error) { return s.rig.Dial(ctx, address, hog.ControlPort) }
	s.host = alpha
	defer func() { err = errors.Join(err, s.stop()) }()
	if err := errors.Join(ctx.Err(), s.start(ctx)); err != nil {
		return nil, err
	}
	for n := range s.count {
		run, err := s.one(ctx, n+1)
		if err != nil {
			return all, fmt.Errorf("run %d: %w", n+1, err)
		}
		all = append(all, run)
		fmt.Fprintln(progress, run)
	}
	return all, nil
}

func (s *runs) start(ctx context.Context) error {
	if err := s.rig.limit(ctx, s.workload.link); err != nil {
		return err
	}
	if err := s.mover.start(ctx, s.workload); err != nil {
		return err
	}
	if err := s.ready(ctx); err != nil {
		return fmt.Errorf("container does not answer: %w", err)
	}
	if s.workload.load == nil {
		return nil
	}
	s.load = s.workload.load(place{s.rig, s.mover})
	return s.load.start(ctx)
}

// ready waits until the hog answers.
func (s *runs) ready(ctx context.Context) (err error) {
	for end := time.Now().Add(readyIn); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if err = s.client.Reset(ctx); err == nil || ctx.Err() != nil {
			break
		}
	}
	return err
}

// stop removes the workload, even where the measurement was interrupted.
func (s *runs) stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if s.load != nil {
		s.load.stop()
	}
	return s.mover.stop(ctx)
}

// one moves the container to the other host.
func (s *runs) one(ctx context.Context, n int) (Run, error) {
	from, to := s.host, alpha
	if from == alpha {
		to = beta
	}
	run := Run{Workload: s.workload.name, Mover: s.mover.name(), Number: n, Unique: s.workload.hog.Memory}
	if err := s.client.Reset(ctx); err != nil {
		return run, err
	}
	memory, err := s.rig.watchMemory(from, to)
	if err != nil {
		return run, err
	}
	begin, err := s.watched(ctx, &run, from, to)
	memory.stop(&run)
	if err != nil {
		return run, err
	}
	report, err := s.client.Report(ctx)
	if err != nil {
		return run, err
	}
	run.inside(report, begin)
	return run, s.verify(ctx)
}

// watched moves the container while the client outside watches.
func (s *runs) watched(ctx context.Context, run *Run, from, to string) (begin time.Time, err error) {
	conn, err := s.rig.Dial(ctx, address, hog.EchoPort)
	if err != nil {
		return begin, err
	}
	seen, err := probe.During(conn, func() (err error) {
		begin = time.Now()
		if run.account, err = s.mover.move(ctx, from, to); err == nil {
			s.host = to
		}
		return err
	})
	run.Outside, run.RTT, run.Late = millis(seen.Gap), millis(seen.MaxRTT), millis(seen.Late)
	return begin, err
}

// verify checks that nothing was lost.
func (s *runs) verify(ctx context.Context) error {
	if err := s.client.Verify(ctx); err != nil {
		return fmt.Errorf("memory after the move: %w", err)
	}
	if s.load == nil {
		return nil
	}
	return s.load.check(ctx, s.host)
}

// minCopying is the shortest time in which a rate means something.
const minCopying = 200 * time.Millisecond

// inside adds what the hog says of a move that began then.
func (r *Run) inside(report hog.Report, begin time.Time) {
	r.Inside, r.Monotonic = millis(report.Realtime.NS), millis(report.Monotonic.NS)
	start := time.Duration(begin.UnixNano())
	gap := report.Realtime
	resume := gap.At + gap.NS
	at := func(t time.Duration) float64 { return doneAt(report.Samples, t) }
	frozen := at(resume) // nothing is written in the gap
	r.Before = rate(at(start-time.Second), at(start), time.Second)
	if gap.At-start >= minCopying {
		r.During = rate(at(start), frozen, gap.At-start)
	}
	r.After = rate(frozen, at(resume+time.Second), time.Second)
	r.Dirtied = uint64(frozen-at(start)) * 4096
}

func millis(d time.Duration) float64 {
	return float64(d.Round(time.Microsecond)) / float64(time.Millisecond)
}

// String is the line that tells how a run goes.
func (r Run) String() string {
	line := fmt.Sprintf("%s %s %d: outside %.1f ms, inside %.1f ms", r.Workload, r.Mover, r.Number, r.Outside, r.Inside)
	if r.Downtime > 0 {
		line += fmt.Sprintf(", pipeline %.1f ms", r.Downtime)
	}
	return line + fmt.Sprintf(", total %.1f s", r.Total/1e3)
}
