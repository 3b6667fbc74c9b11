package ledger

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vzkit/vzkit/bench/resp"
)

const (
	window   = 1 << 16  // records sent and not acknowledged at most
	maxBatch = 64 << 10 // bytes of requests in one write
)

// session is one run on one connection. A goroutine sends, another receives;
// inflight carries a token for each record from the one to the other.
type session struct {
	cfg      Config
	client   *resp.Client
	journal  journal
	inflight chan struct{}
	sent     uint64 // the sender's
	verified atomic.Uint64

	mu    sync.Mutex
	tally *tally // guarded by mu
	over  bool   // guarded by mu; the connection is given up
}

// run keeps the ledger until ctx ends, verifies it and reports.
func (s *session) run(ctx context.Context) (Result, error) {
	defer s.reportStatus()()
	before := identify(s.client.Conn)
	err := s.write(ctx)
	end := time.Now()
	checks := []Verification{}
	if !isLoss(err) {
		check, cut := s.verifySame(ctx)
		checks = append(checks, check)
		err = joined(err, cut)
	}
	after := identify(s.client.Conn)
	if s.cfg.VerifyDial != nil {
		check, cut := s.verifyFresh(ctx)
		checks = append(checks, check)
		err = joined(err, cut)
	}
	return s.result(before, after, end, checks, err), err
}

// write keeps the ledger until ctx ends, a write is refused or the connection
// is lost. All acknowledgements that came are in the tally when it returns.
func (s *session) write(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(ctx, s.lastCall)()
	sending := make(chan error, 1)
	go func() { sending <- s.send(ctx) }()
	refused, recvErr := s.receive(cancel)
	cancel()
	if recvErr != nil {
		s.giveUp()
	}
	for range s.inflight { // lets the sender go on to its end
	}
	sendErr := <-sending
	s.finish(time.Now())
	if recvErr != nil || sendErr != nil {
		return s.loss(recvErr, sendErr)
	}
	return refused
}

// lastCall gives the replies that are still due their time.
func (s *session) lastCall() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.over {
		s.client.SetDeadline(time.Now().Add(s.cfg.Patience))
	}
}

// giveUp ends a write under way on a connection that cannot be read any more.
func (s *session) giveUp() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = true
	s.client.SetDeadline(time.Unix(1, 0))
}

// send sends every record that is due until ctx ends.
func (s *session) send(ctx context.Context) error {
	defer close(s.inflight)
	var b []byte
	next := uint64(1)
	for sleepUntil(ctx, s.journal.due(next)) {
		b = b[:0]
		for now := time.Now(); len(b) < maxBatch && !s.journal.due(next).After(now); next++ {
			b = s.journal.appendRequests(b, next)
		}
		if _, err := s.client.Write(b); err != nil {
			s.lastCall()
			return err
		}
		for ; s.sent < next-1; s.sent++ {
			s.inflight <- struct{}{}
		}
	}
	return nil
}

// receive reads the replies to every record in flight until the sender ends.
// If a write is refused it calls stop and reads on without counting. The
// second error is that of the connection.
func (s *session) receive(stop func()) (refused, err error) {
	n := uint64(0)
	for range s.inflight {
		n++
		no, err := s.record(n, refused == nil)
		if err != nil {
			return refused, err
		}
		if no != nil && refused == nil {
			refused = fmt.Errorf("write record %d: %w", n, no)
			stop()
		}
	}
	return refused, nil
}

// record reads the replies to what was sent for record n.
func (s *session) record(n uint64, count bool) (refused, err error) {
	reply, err := s.client.ReadReply()
	if err != nil {
		return nil, err
	}
	if refused = reply.Err(); refused == nil && count {
		s.ack(n, time.Now())
	}
	for _, read := range []uint64{n, older(n)} {
		if read == 0 {
			continue
		}
		if reply, err = s.client.ReadReply(); err != nil {
			return nil, err
		}
		if count && refused == nil && !s.journal.holds(read, reply) {
			s.mu.Lock()
			s.tally.wrongReads++
			s.mu.Unlock()
		}
	}
	return refused, nil
}

// ack counts record n as acknowledged.
func (s *session) ack(n uint64, at time.Time) {
	s.mu.Lock()
	pause := s.tally.ack(n, at, s.journal.due(n))
	s.mu.Unlock()
	if s.cfg.OnAck != nil {
		s.cfg.OnAck(n, at)
	}
	s.paused(pause)
}

// finish counts the silence at the end if records were sent into it.
func (s *session) finish(now time.Time) {
	if s.sent == s.tally.acked {
		return
	}
	s.mu.Lock()
	pause := s.tally.silence(now)
	s.mu.Unlock()
	s.paused(pause)
}

func (s *session) paused(p *Pause) {
	if p != nil && s.cfg.OnPause != nil {
		s.cfg.OnPause(*p)
	}
}
