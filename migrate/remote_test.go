package migrate

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/vzkit/vzkit/internal/fault"
)

func TestLineWriter(t *testing.T) {
	var got []string
	w := &lineWriter{emit: func(line string) { got = append(got, line) }}
	long := strings.Repeat("x", 3000)
	for _, part := range []string{"one\ntw", "", "o\n\nthr", "ee\x1b[31m\n", long, long, "rest\n"} {
		if n, err := w.Write([]byte(part)); n != len(part) || err != nil {
			t.Errorf("write: %d, %v", n, err)
		}
	}
	if len(got) != 6 || len(got[4]) == 0 || strings.Trim(got[4], "x") != "" {
		t.Fatalf("%.80q", got)
	}
	got[4] = ""
	if diff := cmp.Diff([]string{"one", "two", "", "three", "", "rest"}, got); diff != "" {
		t.Error(diff)
	}
}

// The last event says how it ended; the kind and the hint of an error survive.
func TestServeRefusals(t *testing.T) {
	h := newHost(t)
	put(t, h.ConfPath(101), "")
	for name, c := range map[string]struct {
		job  string
		kind fault.Kind
		want string
	}{
		"nothing":           {"", fault.Usage, "read job"},
		"no JSON":           {"move 101 to beta\n", fault.Usage, "read job"},
		"too long":          {`{"container":"` + strings.Repeat("x", maxJob) + `"}`, fault.Usage, "read job"},
		"unknown container": {`{"container":"web","memory":{"codec":"zstd"}}`, fault.NoContainer, `container "web" does not exist`},
		"no container":      {`{}`, fault.BadValue, "container id is empty"},
		"unknown codec":     {`{"container":"101","memory":{"codec":"rar"}}`, fault.BadValue, "rar"},
	} {
		var out bytes.Buffer
		wantFault(t, name, Serve(t.Context(), h, strings.NewReader(c.job), &out), c.kind, c.want)
		var e Event
		if err := json.Unmarshal(out.Bytes(), &e); err != nil {
			t.Fatalf("%s: %q: %v", name, out.String(), err)
		}
		if e.Kind != Failed || fault.Kind(e.Fault) != c.kind || !strings.Contains(e.Text, c.want) {
			t.Errorf("%s: event %+v", name, e)
		}
	}
}

func TestJobJSON(t *testing.T) {
	want := Job{
		Container: "web", From: "alpha", To: "beta", Target: "10.0.0.2", User: "root", Port: 2222, KnownHosts: []byte("beta \xff\n"),
		Memory: DefaultMemory, RequireLive: true, KeepFiles: true,
	}
	text, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	var got Job
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
