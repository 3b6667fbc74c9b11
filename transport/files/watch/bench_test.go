package watch

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// BenchmarkDrain reads events that are in the queue: the time is that of one.
func BenchmarkDrain(b *testing.B) {
	b.Chdir(b.TempDir())
	root, err := os.Open(".")
	ok(b, err)
	defer root.Close()
	w, err := open(root, unix.FAN_UNLIMITED_QUEUE)
	ok(b, err)
	close(w.done)
	defer w.Close()
	var names []string
	for i := range 10000 {
		names = append(names, "file-"+itoa(i))
		ok(b, os.WriteFile(names[i], nil, 0o600))
	}
	known := func(uint64) bool { return true }
	events := 0
	b.ResetTimer()
	for b.Loop() {
		b.StopTimer()
		w.swap()
		for _, name := range names {
			ok(b, os.Chmod(name, 0o600))
		}
		ok(b, w.conn.Control(func(fd uintptr) {
			n, err := queued(int(fd))
			ok(b, err)
			events += n
		}))
		b.StartTimer()
		if _, lost, err := w.Take(known); lost || err != nil {
			b.Fatal(lost, err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(events), "ns/event")
}

// BenchmarkChmod is what a watched change costs the one that makes it, to be
// compared with the same without a watch.
func BenchmarkChmod(b *testing.B) {
	for name, watched := range map[string]bool{"watched": true, "alone": false} {
		b.Run(name, func(b *testing.B) {
			b.Chdir(b.TempDir())
			if watched {
				start(b, ".")
			}
			for i := range 1000 {
				ok(b, os.WriteFile(itoa(i), nil, 0o600))
			}
			i := 0
			for b.Loop() {
				ok(b, os.Chmod(itoa(i%1000), 0o600))
				i++
			}
		})
	}
}
