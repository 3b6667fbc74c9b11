package downtime

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/vzkit/vzkit/bench/hog"
	"github.com/vzkit/vzkit/bench/report"
)

// of100 are runs of a workload whose downtimes are all the same.
func sameRuns(n int, workload, mover string, outside float64) (runs []Run) {
	for range n {
		runs = append(runs, Run{Workload: workload, Mover: mover, Outside: outside, Inside: outside - 1})
	}
	return runs
}

func row(t *testing.T, rows []report.Row, name string) report.Row {
	t.Helper()
	for _, r := range rows {
		if r.Case == name {
			return r
		}
	}
	t.Fatalf("no row %q in %+v", name, rows)
	return report.Row{}
}

func is(b *bool, want bool) bool { return b != nil && *b == want }

func TestSpread(t *testing.T) {
	var runs []Run
	for i := range 100 {
		runs = append(runs, Run{Outside: float64(i + 1)})
	}
	got := spread(runs, clocks[0].of)
	for name, pair := range map[string][2]float64{"p50": {got.P50, 50}, "p95": {got.P95, 95}, "max": {got.Max, 100}} {
		if d := pair[0] - pair[1]; d < -0.2 || d > 0.2 {
			t.Errorf("%s %g, want %g", name, pair[0], pair[1])
		}
	}
	if none := spread(nil, clocks[0].of); none != (Spread{}) {
		t.Errorf("%+v of nothing", none)
	}
}

func TestDowntimeRows(t *testing.T) {
	const name = "write1g: downtime outside, p50"
	for _, c := range []struct {
		ours, peer     float64
		holds, reached bool
	}{{20, 5000, true, true}, {100, 5000, true, false}, {20, 1000, true, false}, {300, 5000, false, false}} {
		runs := append(sameRuns(5, "write1g", "vzkit", c.ours), sameRuns(3, "write1g", PeerRunc, c.peer)...)
		r := row(t, Rows(runs), name)
		if !is(r.Holds, c.holds) || !is(r.Reached, c.reached) || r.Required == "" || r.Peer != PeerRunc {
			t.Errorf("%g of %g: %+v", c.ours, c.peer, r)
		}
		if d := *r.Ratio - c.ours/c.peer; d > 0.001 || d < -0.001 {
			t.Errorf("ratio %g", *r.Ratio)
		}
	}
	alone := row(t, Rows(sameRuns(1, "write1g", "vzkit", 20)), name)
	if alone.Holds != nil || alone.Reached != nil || alone.PeerValue != nil {
		t.Errorf("without a peer: %+v", alone)
	}
	if r := row(t, Rows(sameRuns(1, "idle64", "vzkit", 20)), "idle64: downtime outside, p50"); !is(r.Reached, true) {
		t.Errorf("wanted needs no peer here: %+v", r)
	}
	if rows := Rows(nil); rows == nil || len(rows) != 0 {
		t.Errorf("%+v of nothing", rows)
	}
}

func TestGrowthRows(t *testing.T) {
	runs := append(sameRuns(3, "idle64", "vzkit", 20), sameRuns(3, "write1g", "vzkit", 50)...)
	runs = append(runs, sameRuns(3, "write4g", "vzkit", 500)...)
	rows := Rows(runs)
	slope := row(t, rows, "write4g: growth of downtime from write1g")
	if *slope.Ours < 0.149 || *slope.Ours > 0.151 || !is(slope.Holds, false) {
		t.Errorf("%+v", slope)
	}
	if times := row(t, rows, "write4g: downtime of that of idle64"); !is(times.Reached, false) {
		t.Errorf("%+v", times)
	}
}

func TestCostRows(t *testing.T) {
	fill := 500.
	r := Run{
		Workload: "write1g", Mover: "vzkit", Outside: 20,
		Before: 1000, During: 950, After: 600, Container: gib, DstPeak: gib + gib/4, SrcPeak: 100 * mib,
	}
	r.Fill = &fill
	rows := Rows([]Run{r})
	for name, holds := range map[string]bool{
		"throughput lost while it is copied":   true,
		"throughput in the first second after": false,
		"all pages in place":                   true,
		"memory of the destination":            false, // 0.1 GiB above, 64 MiB allowed
		"memory of the source":                 true,
	} {
		if got := row(t, rows, "write1g: "+name); !is(got.Holds, holds) {
			t.Errorf("%s: %+v", name, got)
		}
	}
	wire := Run{Workload: "wirerandom", Mover: "vzkit", Unique: gib, Dirtied: gib}
	wire.Wire = 2 * gib
	if got := row(t, Rows([]Run{wire}), "wirerandom: bytes sent"); *got.Ours != 1 || !is(got.Holds, true) {
		t.Errorf("%+v", got)
	}
	for _, got := range Rows([]Run{{Workload: "idle64", Mover: "vzkit", Outside: 20}}) {
		if !strings.Contains(got.Case, "downtime") {
			t.Errorf("row of nothing measured: %+v", got)
		}
	}
}

func TestRates(t *testing.T) {
	var samples []hog.Sample
	const begin, gap, resume = 2 * time.Second, 3 * time.Second, 5 * time.Second
	for at := time.Duration(0); at <= 7*time.Second; at += 50 * time.Millisecond {
		if at > gap && at < resume {
			continue
		}
		done := uint64(at.Milliseconds()) // a thousand a second
		if at >= resume {
			done = 3000 + uint64((at-resume).Milliseconds())/2
		}
		samples = append(samples, hog.Sample{At: at, Done: done})
	}
	var r Run
	r.inside(hog.Report{Samples: samples, Realtime: hog.Gap{At: gap, NS: resume - gap}}, time.Unix(0, int64(begin)))
	if r.Before != 1000 || r.During != 1000 || r.After != 500 || r.Inside != 2000 || r.Dirtied != 1000*4096 {
		t.Errorf("%+v", r)
	}
	var idle Run
	idle.inside(hog.Report{}, time.Now())
	if idle.Before != 0 || idle.During != 0 {
		t.Errorf("%+v", idle)
	}
}

func TestPrint(t *testing.T) {
	runs := append(sameRuns(2, "idle64", "vzkit", 20), sameRuns(2, "idle64", PeerRunc, 400)...)
	result := Result{Runs: runs, Rows: Rows(runs)}
	var out bytes.Buffer
	result.Print(&out)
	for _, want := range []string{"20.0/20.0/20.0", "≤ 1/4 of the peer", "yes", "0.05"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
}

func TestAdapt(t *testing.T) {
	const spec = `{"ociVersion":"1.0","hostname":"runc","process":{"terminal":true,"rlimits":[],"cwd":"/"},
		"root":{"path":"rootfs","readonly":true},"linux":{"maskedPaths":["/proc/kcore"],"namespaces":[]},
		"mounts":[{"destination":"/proc"},{"destination":"/sys"},{"destination":"/sys/fs/cgroup"}]}`
	text, err := adapt([]byte(spec), []string{"/init"}, false)
	if err != nil {
		t.Fatal(err)
	}
	for want, there := range map[string]bool{
		"/run/netns/bench": true, "/proc/kcore": true, "/init": true, `"/sys"`: true,
		"rlimits": false, "cgroup": false, "uidMappings": false,
	} {
		if strings.Contains(string(text), want) != there {
			t.Errorf("%q: want %v in\n%s", want, there, text)
		}
	}
	if !json.Valid(text) {
		t.Errorf("%s", text)
	}
	if _, err := adapt([]byte("{"), nil, false); err == nil {
		t.Error("half a specification is taken")
	}
}

func TestConfigRefusals(t *testing.T) {
	good := Config{Workloads: []string{"idle64"}, Runs: 1, PeerRuns: 1, Peer: PeerNone}
	if err := good.Check(); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(*Config){
		"no workload":       func(c *Config) { c.Workloads = nil },
		`workload "x"`:      func(c *Config) { c.Workloads = []string{"x"} },
		`peer "docker"`:     func(c *Config) { c.Peer = "docker" },
		"number of runs 0":  func(c *Config) { c.Runs = 0 },
		"number of runs -1": func(c *Config) { c.PeerRuns = -1 },
	} {
		bad := good
		change(&bad)
		if err := bad.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", want, err)
		}
	}
	for _, w := range workloads {
		if err := w.hog.Check(); err != nil {
			t.Errorf("%s: %v", w.name, err)
		}
	}
}
