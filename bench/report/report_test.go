package report

import (
	"bytes"
	"strings"
	"testing"
)

func TestPrint(t *testing.T) {
	four := 4.
	asked := Row{Case: "asked", Unit: "ms", Ours: &four, Required: "≤ 1/2 of the peer", Holds: Is(false)}
	asked.Compare("rsync", 5)
	if *asked.Ratio != 0.8 || asked.Peer != "rsync" {
		t.Errorf("%+v", asked)
	}
	var none Row
	none.Compare("rsync", 0)
	if none.Ratio != nil {
		t.Errorf("ratio of nothing %g", *none.Ratio)
	}
	var out bytes.Buffer
	Print(&out, []Row{asked, {Case: "free", Ours: &four}})
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 2 || strings.Join(strings.Fields(lines[1]), " ") != "asked 4 ms 5 0.8 ≤ 1/2 of the peer no - -" {
		t.Errorf("%q", lines)
	}
}
