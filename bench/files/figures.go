package files

import (
	"fmt"
	"io"
	"slices"

	"github.com/vzkit/vzkit/bench/report"
)

// figure is one of a case's.
type figure struct {
	name, unit string
	of         func(Run) float64
	ofPeer     [2]float64 // required and wanted of the peer's at most; 0 is none
	most       [2]float64 // likewise, by itself
}

var (
	passTime  = func(r Run) float64 { return r.MS }
	wholeTime = func(r Run) float64 { return r.Total }
	linkMiB   = func(r Run) float64 { return float64(r.Link) / mib }
)

// Figures of several cases that ask nothing.
var (
	wholeMove = figure{name: "whole move", unit: "ms", of: wholeTime}
	sent      = figure{name: "bytes between the hosts", unit: "MiB", of: linkMiB}
)

// figures of each case.
var figures = map[string][]figure{
	debianCold:     {{name: "file passes", unit: "ms", of: passTime, ofPeer: [2]float64{0.7, 0.4}}, wholeMove, sent},
	smallCold:      {{name: "first pass", unit: "ms", of: passTime, ofPeer: [2]float64{0.6, 0.3}}, wholeMove, sent},
	smallUnchanged: {{name: "second pass", unit: "ms", of: passTime, ofPeer: [2]float64{0.5, 0.2}}},
	bigRewritten: {
		{name: "bytes between the hosts", unit: "MiB", of: linkMiB, ofPeer: [2]float64{1.1, 0}},
		{name: "file passes", unit: "ms", of: passTime, ofPeer: [2]float64{0.5, 0}},
		{name: "file passes beside cp on one disk", unit: "of its time", of: func(r Run) float64 { return r.MS / r.Disk }, most: [2]float64{0, 1}},
		wholeMove,
	},
	bigInserted: {
		{name: "bytes between the hosts", unit: "MiB", of: linkMiB, ofPeer: [2]float64{1.2, 0}},
		{name: "file passes", unit: "ms", of: passTime, ofPeer: [2]float64{0.5, 0}},
		wholeMove,
	},
	movedBack: {
		{name: "bytes between the hosts", unit: "% of its bytes", most: [2]float64{3, 0},
			of: func(r Run) float64 { return 100 * float64(r.Link) / float64(r.Content) }},
		{name: "file passes", unit: "ms", of: passTime}, wholeMove,
	},
	memory1m: {
		{name: "memory of the source", unit: "MiB", most: [2]float64{200, 0}, of: func(r Run) float64 { return float64(r.SrcPeak) / mib }},
		{name: "memory of the destination", unit: "MiB", most: [2]float64{200, 0}, of: func(r Run) float64 { return float64(r.DstPeak) / mib }},
		{name: "file passes", unit: "ms", of: passTime},
	},
}

// Rows are the figures of some runs.
func Rows(runs []Run) []report.Row {
	rows := []report.Row{}
	for _, c := range cases {
		ours, peers := of(runs, c.name, vzkit), of(runs, c.name, peer)
		if len(ours) == 0 {
			continue
		}
		switch c.name {
		case frozen100:
			rows = append(rows, frozenRows(ours, peers)...)
		case busyDatabase:
			rows = append(rows, databaseRows(ours)...)
		}
		for _, f := range figures[c.name] {
			rows = append(rows, f.row(c.name, ours, peers))
		}
	}
	return rows
}

// of are the runs of a case by a mover.
func of(runs []Run, name, mover string) (some []Run) {
	for _, r := range runs {
		if r.Case == name && r.Mover == mover {
			some = append(some, r)
		}
	}
	return some
}

// median is the lower one of an even number.
func median(runs []Run, f func(Run) float64) float64 {
	var values []float64
	for _, r := range runs {
		values = append(values, f(r))
	}
	slices.Sort(values)
	return values[(len(values)-1)/2]
}

func (f figure) row(name string, ours, peers []Run) report.Row {
	v := median(ours, f.of)
	row := report.Row{Case: name + ": " + f.name, Unit: f.unit, Ours: &v}
	if len(peers) > 0 {
		row.Compare(peer, median(peers, f.of))
	}
	row.Required, row.Holds = f.ask(0, row)
	row.Wanted, row.Reached = f.ask(1, row)
	return row
}

// ask is what is required (0) or wanted (1), and whether that is so.
func (f figure) ask(i int, row report.Row) (text string, holds *bool) {
	switch {
	case f.most[i] > 0:
		return fmt.Sprintf("≤ %g", f.most[i]), report.Is(*row.Ours <= f.most[i])
	case f.ofPeer[i] == 0:
		return "", nil
	case row.Ratio != nil:
		holds = report.Is(*row.Ratio <= f.ofPeer[i])
	}
	return fmt.Sprintf("≤ %g × %s", f.ofPeer[i], peer), holds
}

// flatWithin is how many times longer the frozen pass of a tree may take that
// has ten times the files.
const flatWithin = 1.5

// frozenRows are one for each size of the tree, and one that compares them.
func frozenRows(ours, peers []Run) (rows []report.Row) {
	sizes := sizesOf(ours)
	for _, n := range slices.Backward(sizes) {
		f := figure{name: fmt.Sprintf("frozen pass, %d files", n), unit: "ms", of: passTime, most: [2]float64{25, 10}}
		rows = append(rows, f.row(frozen100, ofSize(ours, n), ofSize(peers, n)))
	}
	if len(sizes) < 2 {
		return rows
	}
	times := *rows[0].Ours / *rows[1].Ours
	return append(rows, report.Row{
		Case: fmt.Sprintf("%s: %d files of %d files", frozen100, sizes[1], sizes[0]), Unit: "times", Ours: &times,
		Required: fmt.Sprintf("≤ %g", flatWithin), Holds: report.Is(times <= flatWithin),
	})
}

// sizesOf are the numbers of files in some runs, smallest first.
func sizesOf(runs []Run) (sizes []int) {
	for _, r := range runs {
		if !slices.Contains(sizes, r.Files) {
			sizes = append(sizes, r.Files)
		}
	}
	slices.Sort(sizes)
	return sizes
}

func ofSize(runs []Run, files int) (some []Run) {
	for _, r := range runs {
		if r.Files == files {
			some = append(some, r)
		}
	}
	return some
}

// moreWithin is by how many milliseconds the downtime of a container with very
// many files may exceed that of one with few.
const moreWithin = 30

// databaseRows are the medians for each number of files, and how they differ.
// What is required is that of vzmigrate's own clock.
func databaseRows(ours []Run) (rows []report.Row) {
	for _, f := range []figure{
		{name: "downtime", of: func(r Run) float64 { return r.Downtime }, most: [2]float64{moreWithin, 0}},
		{name: "downtime seen outside", of: func(r Run) float64 { return r.Outside }},
		{name: "frozen pass", of: passTime},
		{name: "whole move", of: wholeTime},
	} {
		rows = append(rows, growth(ours, f)...)
	}
	return rows
}

// growth are the medians of a figure for each number of files, and the largest
// number's above the smallest's, of which something may be asked.
func growth(ours []Run, f figure) (rows []report.Row) {
	sizes := sizesOf(ours)
	for _, n := range slices.Backward(sizes) {
		v := median(ofSize(ours, n), f.of)
		rows = append(rows, report.Row{Case: fmt.Sprintf("%s: %s, %d files", busyDatabase, f.name, n), Unit: "ms", Ours: &v})
	}
	if len(sizes) < 2 {
		return rows
	}
	more := *rows[0].Ours - *rows[1].Ours
	row := report.Row{Case: fmt.Sprintf("%s: %s, %d files above %d files", busyDatabase, f.name, sizes[1], sizes[0]), Unit: "ms", Ours: &more}
	row.Required, row.Holds = f.ask(0, row)
	return append(rows, row)
}

// Print writes the figures of which something is asked.
func (r Result) Print(w io.Writer) {
	fmt.Fprintf(w, "kernel %s, %d cores, vzkit %s, rsync %s, %s", r.Env.Kernel, r.Env.Cores, r.Env.Vzkit, r.Rsync, r.Cipher)
	if r.Scale != 1 {
		fmt.Fprintf(w, ", scale %g", r.Scale)
	}
	fmt.Fprint(w, "\n\n")
	report.Print(w, r.Rows)
}
