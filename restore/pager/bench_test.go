package pager_test

import (
	"bytes"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/vzkit/vzkit/freeze"
	"github.com/vzkit/vzkit/restore/pager"
)

// BenchmarkFill fills 1 GiB of a process that writes 100 MB/s, if it can, for a
// second from the thaw on.
func BenchmarkFill(b *testing.B) {
	f := freezers(b)["v1"]
	for b.Loop() {
		store := newStore(b)
		s := start(b, f, store, 1, nil)
		s.begin("grow")
		line := s.read()
		s.end()
		var address uint64
		if _, err := fmt.Sscanf(line, "%v", &address); err != nil {
			b.Fatal(line, err)
		}
		data := bytes.Repeat([]byte{1}, 1<<20)
		for n := range uint64(1024) {
			if err := store.Put(1, address+n<<20, 256, data); err != nil {
				b.Fatal(err)
			}
		}
		s.freeze()
		g := guarded(b, f)
		begin := time.Now()
		p, err := pager.Attach(b.Context(), pager.Config{Store: store, Freezer: f, Guard: g, Processes: []pager.Process{{PID: s.cmd.Process.Pid, Space: 1}}})
		if err != nil {
			b.Fatal(err)
		}
		attached := time.Now()
		s.begin("churn")
		s.thaw()
		if err := p.Fill(b.Context(), nil); err != nil {
			b.Fatal(err)
		}
		filled := time.Since(attached)
		pages, err := strconv.Atoi(s.read())
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(pages)*pageSize/1e6, "MB/churned")
		b.ReportMetric(float64(attached.Sub(begin).Microseconds())/1000, "ms/attach")
		b.ReportMetric(float64(filled.Microseconds())/1000, "ms/fill")
	}
}

func BenchmarkAttach(b *testing.B) {
	f := freezers(b)["v1"]
	for name, c := range map[string]struct {
		processes int
		command   string
	}{"1 process": {1, "clean"}, "50 processes": {50, "clean"}, "500 threads": {1, "spawn"}} {
		b.Run(name, func(b *testing.B) {
			store := newStore(b)
			var config pager.Config
			var last *subject
			for n := range c.processes {
				s := start(b, f, store, uint64(n+1), nil)
				s.do(c.command)
				config.Processes = append(config.Processes, s.process())
				last = s
			}
			for b.Loop() {
				for n := range config.Processes {
					last.space, last.region = uint64(n+1), config.Processes[n].Ranges[0].Start
					for page := range uint64(20) {
						if err := store.Put(last.space, last.region+page*pageSize, 1, content(1)); err != nil {
							b.Fatal(err)
						}
					}
				}
				last.freeze()
				config.Store, config.Freezer = store, f
				config.Guard = guarded(b, f)
				begin := time.Now()
				p, err := pager.Attach(b.Context(), config)
				if err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(float64(time.Since(begin).Microseconds())/1000, "ms/attach")
				last.thaw()
				if err := p.Fill(b.Context(), nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func guarded(b *testing.B, f freeze.Freezer) *pager.Guard {
	b.Helper()
	g, err := pager.StartGuard(f)
	if err != nil {
		b.Fatal(err)
	}
	time.Sleep(20 * time.Millisecond) // while it starts
	return g
}
