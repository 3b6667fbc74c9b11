package downtime

import (
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/vzkit/vzkit/bench/report"
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
	report.Print(w, r.Rows)
}

func (s Spread) String() string {
	if s.Max == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f/%.1f/%.1f", s.P50, s.P95, s.Max)
}
