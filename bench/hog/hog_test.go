package hog

import (
	"bytes"
	"context"
	"net"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
)

// begin starts a hog in this process and returns a client of it.
func begin(t *testing.T, c Config) (*hog, Client) {
	t.Helper()
	h, err := start(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { debug.SetGCPercent(100) })
	return h, Client{Dial: func(context.Context) (net.Conn, error) {
		ours, theirs := net.Pipe()
		go func() {
			defer theirs.Close()
			h.control(theirs)
		}()
		return ours, nil
	}}
}

func TestVerifyFindsWhatIsLost(t *testing.T) {
	h, client := begin(t, Config{Memory: 4 << 20, Content: Random, Rate: 400e6, Writers: 2})
	time.Sleep(20 * time.Millisecond)
	if err := client.Verify(t.Context()); err != nil {
		t.Fatal(err)
	}
	r, err := client.ask(t.Context(), "verify")
	if err != nil || r.Done == 0 || r.Pages != 1024 {
		t.Fatalf("%+v, %v", r, err)
	}
	for name, harm := range map[string]func(){
		"page wrong":   func() { h.memory.page(700)[300] ^= 1 },
		"page swapped": func() { *h.memory.page(7) = *h.memory.page(8) },
		"write lost":   func() { renderRandom(h.memory.page(7), 7, h.memory.page(7)[1]-1) },
	} {
		stop(h.writers, func() {
			keep := append([]byte{}, h.memory.raw...)
			harm()
			var bad, versions, done uint64
			for _, w := range h.writers {
				b, v := w.check()
				bad, versions, done = bad+b, versions+v, done+w.done.Load()
			}
			if err := (Report{Bad: bad, Versions: versions, Done: done}).Check(); err == nil {
				t.Errorf("%s: not seen", name)
			}
			copy(h.memory.raw, keep)
		})
	}
}

// stop keeps the writers from writing while do runs.
func stop(writers []*writer, do func()) {
	for _, w := range writers {
		w.mu.Lock()
		defer w.mu.Unlock()
	}
	do()
}

func TestChildrenCheckTheirOwnMemory(t *testing.T) {
	h, client := begin(t, Config{Memory: 1 << 20, Content: Random, Children: 3})
	r, err := client.ask(t.Context(), "verify")
	if err != nil || r.Check() != nil {
		t.Fatalf("%+v, %v, %v", r, r.Check(), err)
	}
	if want := uint64(4 * 256); r.Pages != want {
		t.Errorf("%d pages of four processes, want %d", r.Pages, want)
	}
	if r.Done < 3 {
		t.Errorf("%d writes by three children", r.Done)
	}
	h.family.size = 4 // one more than there are
	r = Report{}
	h.family.board[3].asked = 1
	h.family.add(&h.family.board[3], &r)
	if r.Check() == nil {
		t.Error("a child that is missing is not seen")
	}
}

func TestTickerSeesAGap(t *testing.T) {
	h, client := begin(t, Config{Memory: pageSize, Content: Random, Rate: 1e6, Writers: 1})
	time.Sleep(10 * time.Millisecond)
	h.ticker.mu.Lock() // the ticker stands still
	time.Sleep(80 * time.Millisecond)
	h.ticker.mu.Unlock()
	time.Sleep(10 * time.Millisecond)
	r, err := client.Report(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if r.Realtime.NS < 60*time.Millisecond || r.Monotonic.NS < 60*time.Millisecond || len(r.Samples) == 0 {
		t.Errorf("gaps %v, %v, %d samples", r.Realtime.NS, r.Monotonic.NS, len(r.Samples))
	}
	if at := time.Unix(0, int64(r.Realtime.At)); time.Since(at) > time.Minute {
		t.Errorf("gap at %v", at)
	}
	if err := client.Reset(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.ticker.mu.Lock()
	left := h.ticker.realtime.NS
	h.ticker.mu.Unlock()
	if left > 60*time.Millisecond {
		t.Errorf("gap of %v is left after the reset", left)
	}
}

// What the workloads promise of their content has to hold for real codecs.
func TestContentCompresses(t *testing.T) {
	for content, limits := range map[Content][2]float64{Random: {0.99, 1.01}, Mixed: {0.25, 0.34}} {
		m, err := newMemory(4<<20, content)
		if err != nil {
			t.Fatal(err)
		}
		if bad, _ := m.check(); bad != 0 {
			t.Errorf("%s: %d pages wrong", content, bad)
		}
		var out bytes.Buffer
		w, _ := zstd.NewWriter(&out, zstd.WithEncoderLevel(zstd.SpeedFastest))
		w.Write(m.raw)
		w.Close()
		if ratio := float64(out.Len()) / float64(len(m.raw)); ratio < limits[0] || ratio > limits[1] {
			t.Errorf("%s: zstd makes it %.3f of its size", content, ratio)
		}
	}
}

func TestConfigRefusals(t *testing.T) {
	for want, c := range map[string]Config{
		"content":            {Memory: 1 << 20, Content: "zero"},
		"memory of 0":        {Content: Random},
		"rate -1":            {Memory: 1 << 20, Content: Random, Rate: -1},
		"number of writers":  {Memory: 1 << 20, Content: Random, Writers: 257},
		"number of children": {Memory: 1 << 20, Content: Random, Children: 65},
		"cannot be written":  {Memory: 1 << 20, Content: Mixed, Writers: 1},
	} {
		if err := c.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", want, err)
		}
	}
	if err := (Config{Memory: 1 << 20, Content: Random, Writers: 256, Children: 64}).Check(); err != nil {
		t.Error(err)
	}
}

func TestAnswersAreBounded(t *testing.T) {
	if _, err := readReport(strings.NewReader(`{"pages":1}`)); err == nil {
		t.Error("answer without an end is taken")
	}
	if _, err := readReport(strings.NewReader(strings.Repeat(" ", maxAnswer+1) + "\n")); err == nil {
		t.Error("answer that is too long is taken")
	}
}
