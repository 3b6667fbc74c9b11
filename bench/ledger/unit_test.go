package ledger

import (
	"strings"
	"testing"
	"time"

	"github.com/vzkit/vzkit/bench/resp"
)

func bulk(b []byte) resp.Reply { return resp.Reply{Kind: resp.Bulk, Text: b} }

func TestJournal(t *testing.T) {
	j := journal{name: "run", start: time.Unix(1000, 0), interval: time.Millisecond}
	value := j.appendValue(nil, 3)
	if !strings.HasPrefix(string(value), "run 3 1000002000000 ") {
		t.Errorf("record 3 is %q", value)
	}
	if !j.holds(3, bulk(value)) || j.holds(4, bulk(value)) || j.holds(3, resp.Reply{Kind: resp.Bulk, Null: true}) {
		t.Error("holds is wrong about record 3")
	}
	value[len(value)-1] ^= 1
	if j.holds(3, bulk(value)) {
		t.Error("a flipped bit went unseen")
	}
}

func TestOlder(t *testing.T) {
	for n := uint64(1); n < 10_000; n++ {
		if o := older(n); o >= n || (o == 0) != (n%every != 0) {
			t.Fatalf("older(%d) = %d", n, o)
		}
	}
}

// A server that stands still for 100 records makes all of them late, not one.
func TestLatencyCountsFromWhenDue(t *testing.T) {
	j := journal{start: time.Now(), interval: time.Millisecond}
	tl := newTally(j.start, j.interval)
	for n := uint64(1); n <= 200; n++ {
		at := j.due(n).Add(100 * time.Microsecond)
		if n > 100 { // all at once, when the last of them is due
			at = j.due(200)
		}
		tl.ack(n, at, j.due(n))
	}
	if p := tl.latency.ValueAtQuantile(75); p < 45_000 || p > 55_000 {
		t.Errorf("three quarters are within %d µs, want about 50 ms", p)
	}
	if len(tl.pauses) != 1 || tl.longest.MS != 99.9 || !tl.longest.At.Equal(j.due(100).Add(100*time.Microsecond)) {
		t.Errorf("pauses %+v, longest %+v", tl.pauses, tl.longest)
	}
}

// With a long interval the ordinary time between records is no pause.
func TestSlowPaceIsNoPause(t *testing.T) {
	j := journal{start: time.Now(), interval: time.Second}
	tl := newTally(j.start, j.interval)
	for n := uint64(1); n <= 5; n++ {
		tl.ack(n, j.due(n), j.due(n))
	}
	if len(tl.pauses) != 0 {
		t.Errorf("%+v", tl.pauses)
	}
}

func TestPausesAreBounded(t *testing.T) {
	start := time.Now()
	tl := newTally(start, time.Millisecond)
	for n := range uint64(2 * maxPauses) {
		tl.ack(n+1, start.Add(time.Duration(n)*30*time.Millisecond), start)
	}
	if len(tl.pauses) != maxPauses {
		t.Errorf("%d pauses kept", len(tl.pauses))
	}
}

func TestCheck(t *testing.T) {
	id := Identity{Local: "a", Remote: "b", Cookie: 1}
	good := Result{
		Acked: 5, Connection: Connection{Identity: id, After: id, Same: true},
		Verifications: []Verification{{Connection: "same", Read: 5}},
	}
	if err := good.Check(); err != nil {
		t.Fatal(err)
	}
	unread := good
	unread.Verifications = nil
	if text := unread.String(); !strings.Contains(text, "only 0 of them read back") {
		t.Error(text)
	}
	for want, spoil := range map[string]func(*Result){
		"connection changed": func(r *Result) { r.Connection.Same = false },
		"no write":           func(r *Result) { r.Acked = 0 },
		"missing":            func(r *Result) { r.Missing = 1 },
		"altered":            func(r *Result) { r.Mismatched = 1 },
		"reads during":       func(r *Result) { r.WrongReads = 1 },
		"0 of 5":             func(r *Result) { r.Verifications = nil },
		"4 of 5":             func(r *Result) { r.Verifications = []Verification{{Read: 4}} },
		"boom":               func(r *Result) { r.Error = "boom" },
	} {
		r := good
		spoil(&r)
		if err := r.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}
