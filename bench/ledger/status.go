package ledger

import (
	"sync"
	"time"
)

// Status is how a run stands.
type Status struct {
	Elapsed  time.Duration
	Acked    uint64
	Longest  Pause
	Silence  time.Duration // since the last acknowledgement
	Verified uint64        // records read back in the verification going on
}

// reportStatus calls OnStatus once a second until the function it returns is
// called.
func (s *session) reportStatus() (stop func()) {
	if s.cfg.OnStatus == nil {
		return func() {}
	}
	tick := time.NewTicker(time.Second)
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case now := <-tick.C:
				s.cfg.OnStatus(s.status(now))
			case <-done:
				return
			}
		}
	})
	return func() { tick.Stop(); close(done); wg.Wait() }
}

func (s *session) status(now time.Time) Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Status{
		Elapsed:  now.Sub(s.journal.start),
		Acked:    s.tally.acked,
		Longest:  s.tally.longest,
		Silence:  now.Sub(s.tally.lastAck),
		Verified: s.verified.Load(),
	}
}
