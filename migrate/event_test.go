package migrate

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/vzkit/vzkit/internal/fault"
)

var report = &Report{
	CTID: 101, Source: "alpha", Destination: "beta", Live: true, Downtime: 231.2,
	Phases: []Phase{
		{"connect", 120, 0}, {"files", 2000, 40 << 20}, {"freeze", 3.4, 0}, {"dump", 100.6, 5 << 20}, {"send", 12, 100}, {"files", 1, 10},
		{"send", 10.4, 200}, {"restore", 104.9, 0}, {"finish", 30, 0},
	},
	Total: 3449, WireBytes: 43201331, MemoryBytes: 5 << 20, Tracker: "none", Rounds: []Round{{MS: 12.5, Pages: 100, Dirty: 3, Decision: UnderLimit}},
}

func TestSummary(t *testing.T) {
	want := "downtime 231 ms (freeze 3, dump 101, send 22, restore 105), total 3.4 s, 41.2 MiB sent"
	if got := report.Summary(); got != want {
		t.Errorf("%q\nwant %q", got, want)
	}
	stopped := Report{Total: 999.9, WireBytes: 1 << 19, Phases: report.Phases}
	if got, want := stopped.Summary(), "total 1.0 s, 0.5 MiB sent"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	empty := Report{Live: true}
	if got, want := empty.Summary(), "downtime 0 ms (freeze 0, dump 0, send 0, restore 0), total 0.0 s, 0.0 MiB sent"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestEventJSON(t *testing.T) {
	for _, e := range []Event{
		{Kind: Progress, Phase: "files", Bytes: 1, Total: 1<<64 - 1},
		{Kind: Done, Phase: phaseFreeze, Millis: 3.25, Bytes: 7},
		{Kind: Note, Text: "a\nb \u2028 <c>"},
		{Kind: Failed, Text: "no", Hint: "do", Fault: uint16(fault.Locked)},
		{Kind: Finished, Report: report},
	} {
		text, err := json.Marshal(e)
		if err != nil || strings.Contains(string(text), "\n") {
			t.Errorf("%q, %v", text, err)
		}
		var got Event
		if err := json.Unmarshal(text, &got); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(e, got); diff != "" {
			t.Error(diff)
		}
	}
}

// The names are what `vzmigrate --json` promises.
func TestReportJSON(t *testing.T) {
	text, err := json.Marshal(Report{Phases: []Phase{{"dump", 1, 2}}, Passes: []Pass{{5, 6, 7, 8, 9, true, true}}, Rounds: []Round{{1, 2, 3, 4, 5, 6, "g"}}})
	want := `{"ctid":0,"src":"","dst":"","live":false,"downtime_ms":0,"phases":[{"name":"dump","ms":1,"bytes":2}],` +
		`"total_ms":0,"wire_bytes":0,"memory_bytes":0,"tracker":"","dump":"","way":"",` +
		`"passes":[{"ms":5,"looked":6,"entries":7,"bytes":8,"deleted":9,"frozen":true,"tracked":true}],` +
		`"rounds":[{"ms":1,"pages":2,"zero":3,"wire_bytes":4,"dirty":5,"predicted_ms":6,"decision":"g"}],` +
		`"last_pages":0,"steps":null,"fill_ms":0}`
	if err != nil || string(text) != want {
		t.Errorf("%s, %v\nwant %s", text, err, want)
	}
}

func TestCheckID(t *testing.T) {
	if err := checkID("4a2f7d1e-0123-4567-89ab-cdef01234567"); err != nil {
		t.Error(err)
	}
	for _, id := range []string{
		"", "4a2f7d1e", "4A2F7D1E-0123-4567-89AB-CDEF01234567", "4a2f7d1e-0123-4567-89ab-cdef0123456", "../d1e-0123-4567-89ab-cdef01234567",
		"4a2f7d1e-0123-4567-89ab-cdef01234567\n", "4a2f7d1e-0123-4567-89ab-cdef01234567/..", "4a2f7d1e_0123-4567-89ab-cdef01234567",
	} {
		if err := checkID(id); fault.KindOf(err) != fault.Protocol {
			t.Errorf("%q: %v", id, err)
		}
	}
}
