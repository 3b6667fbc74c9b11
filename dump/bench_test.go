package dump

import (
	"fmt"
	"testing"
	"time"
)

// BenchmarkDump measures how long a container must stand still for its dump,
// without the tracker's part. The container is in the machine's own cgroups
// but for the freezer's, and CRIU looks at all of them: in a container with
// cgroups of its own it takes less.
func BenchmarkDump(b *testing.B) {
	for _, size := range []int{64, 1024} {
		for _, options := range []string{"", "many"} {
			for _, mode := range Modes {
				if mode == Copied && size > 64 {
					continue
				}
				b.Run(fmt.Sprintf("%s/%dMiB%s", mode, size, options), func(b *testing.B) { benchmarkDump(b, mode, size, options) })
			}
		}
	}
}

func benchmarkDump(b *testing.B, mode Mode, size int, options string) {
	c := start(b, size, 1, options)
	cache := b.TempDir()
	var collect, all time.Duration
	for b.Loop() {
		config, _ := c.config(mode)
		config.Cache = cache
		p, err := Prepare(config, c.pids())
		must(b, err)
		c.freeze()
		layout := c.layout()
		start := time.Now()
		stats, err := p.Dump(b.Context(), layout)
		all += time.Since(start)
		collect += stats.Collect
		must(b, err)
		must(b, p.CheckFlags())
		p.Close()
		must(b, c.freezer.Thaw())
	}
	b.ReportMetric(float64(collect.Microseconds())/1000/float64(b.N), "ms-to-images")
	b.ReportMetric(float64(all.Microseconds())/1000/float64(b.N), "ms-to-end")
}
