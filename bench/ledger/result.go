package ledger

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/text/language"
	"golang.org/x/text/message"
)

// Result is the outcome of a run, and the object of `vzbench ledger --json`.
type Result struct {
	Name           string         `json:"name"`
	Connection     Connection     `json:"connection"`
	Sent           uint64         `json:"sent"`
	Acked          uint64         `json:"acked"`
	Missing        uint64         `json:"missing"`     // of the acknowledged; the worst verification
	Mismatched     uint64         `json:"mismatched"`  // likewise
	WrongReads     uint64         `json:"wrong_reads"` // read back wrongly during the run
	LongestPauseMS float64        `json:"longest_pause_ms"`
	LongestPauseAt time.Time      `json:"longest_pause_at"`
	Latency        Latency        `json:"latency_ms"`
	Pauses         []Pause        `json:"pauses"` // of 20 ms and more, the first 4096
	Retransmits    uint32         `json:"retransmits"`
	DurationS      float64        `json:"duration_s"` // of the writing
	Verifications  []Verification `json:"verifications"`
	Error          string         `json:"error"` // of the run; empty if it went well

	err error
}

// Connection is the run's connection at its start and at its end.
type Connection struct {
	Identity
	After Identity `json:"after"`
	Same  bool     `json:"same"`
}

// Latency is the distribution of the time from when a record was due to its
// acknowledgement, in milliseconds.
type Latency struct {
	P50 float64 `json:"p50"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

func (s *session) result(before, after observation, end time.Time, checks []Verification, err error) Result {
	t := s.tally
	micros := func(n int64) float64 { return float64(n) / 1000 }
	r := Result{
		Name: s.cfg.Name,
		Connection: Connection{
			Identity: before.Identity,
			After:    after.Identity,
			Same:     before.Identity == after.Identity && before.Cookie != 0 && !isLoss(err),
		},
		Sent: s.sent, Acked: t.acked, WrongReads: t.wrongReads,
		LongestPauseMS: t.longest.MS, LongestPauseAt: t.longest.At,
		Latency: Latency{
			P50: micros(t.latency.ValueAtQuantile(50)),
			P99: micros(t.latency.ValueAtQuantile(99)),
			Max: micros(t.latency.Max()),
		},
		Pauses:        append([]Pause{}, t.pauses...),
		Retransmits:   after.retransmits,
		DurationS:     end.Sub(s.journal.start).Round(time.Millisecond).Seconds(),
		Verifications: checks,
		err:           err,
	}
	if err != nil {
		r.Error = err.Error()
	}
	for _, v := range checks {
		r.Missing, r.Mismatched = max(r.Missing, v.Missing), max(r.Mismatched, v.Mismatched)
	}
	return r
}

// notRun is the Result of a run that could not begin.
func notRun(err error) Result {
	return Result{Pauses: []Pause{}, Verifications: []Verification{}, Error: err.Error(), err: err}
}

// Check returns nil only if the run came to its end, on one and the same
// connection, and every acknowledged record was there at the end.
func (r Result) Check() error {
	switch {
	case r.err != nil:
		return r.err
	case r.Error != "":
		return errors.New(r.Error)
	case !r.Connection.Same:
		return fmt.Errorf("connection changed from %+v to %+v", r.Connection.Identity, r.Connection.After)
	case r.Acked == 0:
		return errors.New("no write was acknowledged")
	case r.Missing > 0:
		return fmt.Errorf("%d of %d acknowledged records missing%s", r.Missing, r.Acked, r.examples())
	case r.Mismatched > 0:
		return fmt.Errorf("%d of %d acknowledged records altered%s", r.Mismatched, r.Acked, r.examples())
	case r.WrongReads > 0:
		return fmt.Errorf("%d reads during the run answered wrongly", r.WrongReads)
	}
	return r.checkCoverage()
}

// checkCoverage makes sure that nothing was left out of the verification.
func (r Result) checkCoverage() error {
	if n := r.verified(); n != r.Acked {
		return fmt.Errorf("%d of %d acknowledged records read back", n, r.Acked)
	}
	return nil
}

// verified is the number of records that every verification has read.
func (r Result) verified() uint64 {
	if len(r.Verifications) == 0 {
		return 0
	}
	n := r.Acked
	for _, v := range r.Verifications {
		n = min(n, v.Read)
	}
	return n
}

func (r Result) examples() string {
	for _, v := range r.Verifications {
		if len(v.Examples) > 0 {
			return fmt.Sprintf(", such as %d", v.Examples)
		}
	}
	return ""
}

// String is the result in two lines for people.
func (r Result) String() string {
	p := message.NewPrinter(language.English)
	found := p.Sprintf("%d missing, %d altered", r.Missing, r.Mismatched)
	if n := r.verified(); n != r.Acked {
		found = p.Sprintf("only %d of them read back, %s", n, found)
	}
	return p.Sprintf("longest pause %.0f ms; %s; %d acknowledged writes, %s\n"+
		"latency p50 %.2f ms, p99 %.2f ms, max %.2f ms; %d pauses of 20 ms and more; %d retransmits; %.1f s",
		r.LongestPauseMS, r.Connection, r.Acked, found,
		r.Latency.P50, r.Latency.P99, r.Latency.Max, len(r.Pauses), r.Retransmits, r.DurationS)
}

// String names the connection and says whether it stayed the same.
func (c Connection) String() string {
	name := c.Local + " -> " + c.Remote
	if c.Same {
		return "1 connection " + name + " the whole time"
	}
	return "connection " + name + " lost on the way"
}
