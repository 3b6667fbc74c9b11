package ledger

import (
	"context"
	"fmt"

	"github.com/vzkit/vzkit/bench/resp"
)

// Verification is what reading back all acknowledged records found.
type Verification struct {
	Connection string   `json:"connection"` // "same" or "fresh"
	Read       uint64   `json:"read"`       // records asked for and answered
	Missing    uint64   `json:"missing"`    // the server has no such record
	Mismatched uint64   `json:"mismatched"` // it has other content
	Examples   []uint64 `json:"examples,omitempty"`
}

const maxExamples = 10

// verifySame reads the records back on the connection that wrote them.
func (s *session) verifySame(ctx context.Context) (Verification, error) {
	return s.verify(ctx, "same", s.client)
}

// verifyFresh reads them back on a new connection.
func (s *session) verifyFresh(ctx context.Context) (Verification, error) {
	conn, err := s.cfg.VerifyDial(context.WithoutCancel(ctx))
	if err != nil {
		return Verification{Connection: "fresh"}, fmt.Errorf("connect for verification: %w", err)
	}
	defer conn.Close()
	return s.verify(ctx, "fresh", resp.NewClient(conn))
}

// verify goes on after ctx has ended, which is how a run ends; the server's
// silence is bounded by the run's patience.
func (s *session) verify(ctx context.Context, which string, client *resp.Client) (Verification, error) {
	v := Verification{Connection: which}
	get := func(b []byte, i uint64) []byte { return s.journal.appendGet(b, i+1) }
	err := client.Pipeline(context.WithoutCancel(ctx), s.tally.acked, s.cfg.Patience, get,
		func(i uint64, r resp.Reply) error {
			v.compare(s.journal, i+1, r)
			s.verified.Store(v.Read)
			return r.Err()
		})
	if err != nil {
		return v, fmt.Errorf("read back on the %s connection, %d of %d done: %w", which, v.Read, s.tally.acked, err)
	}
	return v, nil
}

func (v *Verification) compare(j journal, n uint64, r resp.Reply) {
	switch {
	case r.Err() != nil:
		return
	case r.Null:
		v.Missing++
	case !j.holds(n, r):
		v.Mismatched++
	default:
		v.Read++
		return
	}
	v.Read++
	if len(v.Examples) < maxExamples {
		v.Examples = append(v.Examples, n)
	}
}
