package downtime

import (
	"fmt"
	"slices"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/vzkit/vzkit/bench/report"
)

// Spread is a distribution in milliseconds.
type Spread struct{ P50, P95, Max float64 }

// spread is that of f over runs.
func spread(runs []Run, f func(Run) float64) Spread {
	h := hdrhistogram.New(1, int64(time.Hour/time.Microsecond), 3)
	for _, r := range runs {
		_ = h.RecordValue(int64(f(r) * 1e3)) // an hour is more than a run may take
	}
	at := func(q float64) float64 { return float64(h.ValueAtQuantile(q)) / 1e3 }
	return Spread{at(50), at(95), float64(h.Max()) / 1e3}
}

// median is the lower one of an even number; false if there is no value.
func median(runs []Run, f func(Run) (float64, bool)) (float64, bool) {
	var values []float64
	for _, r := range runs {
		if v, ok := f(r); ok {
			values = append(values, v)
		}
	}
	if len(values) == 0 {
		return 0, false
	}
	slices.Sort(values)
	return values[(len(values)-1)/2], true
}

// clock is one of those that see a downtime.
type clock struct {
	name string
	of   func(Run) float64
}

var clocks = []clock{
	{"outside", func(r Run) float64 { return r.Outside }},
	{"inside", func(r Run) float64 { return r.Inside }},
	{"pipeline", func(r Run) float64 { return r.Downtime }},
}

// Rows are the figures of some runs: of each workload the downtime by each
// clock, then what else is asked of it.
func Rows(runs []Run) []report.Row {
	rows := []report.Row{}
	for _, w := range workloads {
		ours, peers := of(runs, w.name, "vzkit"), of(runs, w.name, PeerRunc)
		if len(ours) == 0 {
			continue
		}
		rows = append(rows, downtimes(w, ours, peers)...)
		rows = append(rows, w.growth(runs)...)
		rows = append(rows, w.costs(ours, peers)...)
	}
	return rows
}

// of are the runs of a workload by a mover.
func of(runs []Run, workload, mover string) (some []Run) {
	for _, r := range runs {
		if r.Workload == workload && r.Mover == mover {
			some = append(some, r)
		}
	}
	return some
}

// downtimes are three rows a clock. What is asked is asked of the median of
// what is seen outside.
func downtimes(w workload, ours, peers []Run) (rows []report.Row) {
	for _, c := range clocks {
		our, peer := spread(ours, c.of), spread(peers, c.of)
		for _, q := range []struct {
			name      string
			our, peer float64
		}{{"p50", our.P50, peer.P50}, {"p95", our.P95, peer.P95}, {"max", our.Max, peer.Max}} {
			row := report.Row{Case: fmt.Sprintf("%s: downtime %s, %s", w.name, c.name, q.name), Unit: "ms", Ours: &q.our}
			if q.peer > 0 {
				row.Compare(PeerRunc, q.peer)
			}
			if c.name == "outside" && q.name == "p50" {
				ask(&row, w)
			}
			rows = append(rows, row)
		}
	}
	return rows
}

// ask fills in what is asked of the downtime.
func ask(r *report.Row, w workload) {
	if w.ofPeer > 0 {
		r.Required = fmt.Sprintf("≤ 1/%.0f of the peer", 1/w.ofPeer)
		if r.Ratio != nil {
			r.Holds = report.Is(*r.Ratio <= w.ofPeer)
		}
	}
	if w.wanted == 0 {
		return
	}
	r.Wanted = fmt.Sprintf("≤ %.0f ms", w.wanted)
	reached := *r.Ours <= w.wanted
	if w.wantedOfPeer > 0 {
		r.Wanted += fmt.Sprintf(", 1/%.0f", 1/w.wantedOfPeer)
		if r.Ratio == nil {
			return
		}
		reached = reached && *r.Ratio <= w.wantedOfPeer
	}
	r.Reached = report.Is(reached)
}

// Downtime may grow by so many seconds a GiB, and should not be larger than so
// many times that of the smallest.
const (
	maxSlope   = 0.12
	flatWithin = 1.5
)

// growth is how the downtime grows from the small workloads to this one.
func (w workload) growth(runs []Run) (rows []report.Row) {
	if w.name != "write4g" {
		return nil
	}
	p50 := func(name string) (float64, bool) {
		some := of(runs, name, "vzkit")
		return spread(some, clocks[0].of).P50, len(some) > 0
	}
	large, _ := p50("write4g")
	if middle, ok := p50("write1g"); ok {
		slope := (large - middle) / 1e3 / 3
		rows = append(rows, report.Row{
			Case: "write4g: growth of downtime from write1g", Unit: "s/GiB", Ours: &slope,
			Required: fmt.Sprintf("≤ %g", maxSlope), Holds: report.Is(slope <= maxSlope),
		})
	}
	if small, ok := p50("idle64"); ok {
		times := large / small
		rows = append(rows, report.Row{
			Case: "write4g: downtime of that of idle64", Unit: "times", Ours: &times,
			Wanted: fmt.Sprintf("≤ %g", flatWithin), Reached: report.Is(times <= flatWithin),
		})
	}
	return rows
}
