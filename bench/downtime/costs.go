package downtime

import (
	"fmt"

	"github.com/vzkit/vzkit/bench/report"
)

// cost is what a move costs beside downtime.
type cost struct {
	name, unit, required string
	of                   func(workload, Run) (float64, bool) // false: not measured, or not of this workload
	holds                func(float64) bool
}

func atMost(limit float64) func(float64) bool { return func(v float64) bool { return v <= limit } }

func atLeast(limit float64) func(float64) bool { return func(v float64) bool { return v >= limit } }

// What each cost may be.
const (
	maxLost     = 10.  // percent
	minResumed  = 70.  // percent
	maxFill     = 1.   // seconds a GiB
	dstFactor   = 1.15 // of the container's memory
	memorySlack = 64 * mib
	deltaCache  = 64 * mib // vzmigrate's default
	percent     = 100.
)

// costs in the order of their rows. Memory is judged above what is allowed to
// a container of any size.
var costs = []cost{
	{"throughput lost while it is copied", "%", fmt.Sprintf("≤ %g", maxLost), lost, atMost(maxLost)},
	{"throughput in the first second after", "% of before", fmt.Sprintf("≥ %g", minResumed), resumed, atLeast(minResumed)},
	{"all pages in place", "s/GiB", fmt.Sprintf("≤ %g", maxFill), fill, atMost(maxFill)},
	{"memory of the destination", "MiB above 1.15 × container", "≤ 64", dstMemory, atMost(memorySlack / mib)},
	{"memory of the source", "MiB above container", "≤ 64 + 64 of delta cache", srcMemory, atMost((memorySlack + deltaCache) / mib)},
}

// wireCost is judged by a limit of the workload.
func (w workload) wireCost() cost {
	return cost{
		"bytes sent", "of unique and dirtied pages", fmt.Sprintf("≤ %g", w.wire),
		func(w workload, r Run) (float64, bool) {
			return float64(r.Wire) / float64(r.Unique+r.Dirtied), w.wire > 0 && r.Wire > 0
		},
		atMost(w.wire),
	}
}

// costs are the rows of the workload's costs.
func (w workload) costs(ours, peers []Run) (rows []report.Row) {
	for _, c := range append(costs[:len(costs):len(costs)], w.wireCost()) {
		of := func(r Run) (float64, bool) { return c.of(w, r) }
		v, ok := median(ours, of)
		if !ok {
			continue
		}
		row := report.Row{Case: w.name + ": " + c.name, Unit: c.unit, Ours: &v, Required: c.required, Holds: report.Is(c.holds(v))}
		if peer, ok := median(peers, of); ok {
			row.Compare(PeerRunc, peer)
		}
		rows = append(rows, row)
	}
	return rows
}

func lost(_ workload, r Run) (float64, bool) {
	return percent * (1 - r.During/r.Before), r.Before > 0 && r.During > 0
}

func resumed(_ workload, r Run) (float64, bool) {
	return percent * r.After / r.Before, r.Before > 0
}

func fill(_ workload, r Run) (float64, bool) {
	if r.Fill == nil || r.Container == 0 {
		return 0, false
	}
	return *r.Fill / 1e3 / (float64(r.Container) / gib), true
}

func dstMemory(_ workload, r Run) (float64, bool) {
	return (float64(r.DstPeak) - dstFactor*float64(r.Container)) / mib, r.DstPeak > 0
}

func srcMemory(_ workload, r Run) (float64, bool) {
	return float64(r.SrcPeak) / mib, r.SrcPeak > 0
}
