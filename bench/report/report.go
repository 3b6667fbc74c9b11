// Package report is what benchmarks say: rows of figures, each with that of a
// peer and what is asked of it, and their printed form.
package report

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// Row is one figure. Ours and PeerValue are in Unit; what could not be
// measured is absent, and what asks nothing has no Required.
type Row struct {
	Case      string   `json:"case"`
	Unit      string   `json:"unit"`
	Ours      *float64 `json:"ours"`
	Peer      string   `json:"peer"`
	PeerValue *float64 `json:"peer_value"`
	Ratio     *float64 `json:"ratio"` // ours of the peer's
	Required  string   `json:"required"`
	Wanted    string   `json:"wanted"`
	Holds     *bool    `json:"holds"`        // the required; absent if there is none, or nothing to compare with
	Reached   *bool    `json:"wanted_holds"` // likewise the wanted
}

// Compare fills in what the peer has.
func (r *Row) Compare(peer string, value float64) {
	r.Peer, r.PeerValue = peer, &value
	if r.Ours != nil && value > 0 {
		ratio := *r.Ours / value
		r.Ratio = &ratio
	}
}

// Is is a value for Holds and Reached.
func Is(b bool) *bool { return &b }

// Print writes the rows of which something is asked as a table.
func Print(w io.Writer, rows []Row) {
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
