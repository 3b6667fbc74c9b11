package downtime

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// Print writes the result as tables: downtimes by the three clocks side by
// side, then the figures of which something is asked.
func (r Result) Print(w io.Writer) {
	fmt.Fprintf(w, "kernel %s, %d cores, CRIU %s, vzkit %s\n\n", r.Env.Kernel, r.Env.Cores, r.Env.CRIU, r.Env.Vzkit)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "downtime in ms: p50/p95/max\truns\toutside\tinside\tpipeline\t")
	for _, wl := range workloads {
		for _, mover := range []string{"vzkit", PeerRunc} {
			if runs := of(r.Runs, wl.name, mover); len(runs) > 0 {
				fmt.Fprintf(t, "%s, %s\t%d\t%s\t%s\t%s\t\n", wl.name, mover, len(runs),
					spread(runs, clocks[0].of), spread(runs, clocks[1].of), spread(runs, clocks[2].of))
			}
		}
	}
	t.Flush()
	fmt.Fprintln(w)
	printRows(w, r.Rows)
}

func (s Spread) String() string {
	if s.Max == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f/%.1f/%.1f", s.P50, s.P95, s.Max)
}

func printRows(w io.Writer, rows []Row) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "figure\tours\tpeer\tratio\trequired\tholds\twanted\treached")
	for _, r := range rows {
		if r.Required == "" && r.Wanted == "" {
			continue
		}
		fmt.Fprintln(t, strings.Join([]string{
			r.Case, number(r.Ours) + " " + r.Unit, number(r.PeerValue), number(r.Ratio),
			orDash(r.Required), answer(r.Holds), orDash(r.Wanted), answer(r.Reached),
		}, "\t"))
	}
	t.Flush()
}

func number(v *float64) string {
	if v == nil {
		return "-"
	}
	return fmt.Sprintf("%.3g", *v)
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func answer(b *bool) string {
	switch {
	case b == nil:
		return "-"
	case *b:
		return "yes"
	}
	return "no"
}
