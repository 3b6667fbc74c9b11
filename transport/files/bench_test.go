package files

import (
	"context"
	"fmt"
	"os"
	"testing"

	"github.com/vzkit/vzkit/transport"
)

// smallFiles makes 10,000 files of 1 KiB in 100 directories.
func smallFiles(b *testing.B) string {
	src := b.TempDir()
	content := make([]byte, 1<<10)
	for d := range 100 {
		dir := fmt.Sprintf("%s/d%d", src, d)
		if err := os.Mkdir(dir, 0o755); err != nil {
			b.Fatal(err)
		}
		for f := range 100 {
			if err := os.WriteFile(fmt.Sprintf("%s/f%d", dir, f), content, 0o644); err != nil {
				b.Fatal(err)
			}
		}
	}
	settle()
	return src
}

type nowhere struct{}

func (nowhere) WriteFrame(transport.Type, ...[]byte) error { return nil }
func (nowhere) Flush() error                               { return nil }

func benchPass(b *testing.B, source *Source, w FrameWriter) {
	if _, err := source.Pass(context.Background(), w, PassOptions{Pass: 1}); err != nil {
		b.Fatal(err)
	}
}

func benchSource(b *testing.B, src string) *Source {
	source, err := NewSource(src, SourceOptions{})
	if err != nil {
		b.Fatal(err)
	}
	return source
}

// BenchmarkFirstPass reads and sends 10,000 small files.
func BenchmarkFirstPass(b *testing.B) {
	src := smallFiles(b)
	b.ReportAllocs()
	for b.Loop() {
		source := benchSource(b, src)
		benchPass(b, source, nowhere{})
		source.Close()
	}
}

// BenchmarkNoChange passes over 10,000 files that did not change.
func BenchmarkNoChange(b *testing.B) {
	source := benchSource(b, smallFiles(b))
	defer source.Close()
	benchPass(b, source, nowhere{})
	b.ReportAllocs()
	for b.Loop() {
		benchPass(b, source, nowhere{})
	}
}

// BenchmarkReceive writes 10,000 small files.
func BenchmarkReceive(b *testing.B) {
	source := benchSource(b, smallFiles(b))
	defer source.Close()
	var recorded tape
	benchPass(b, source, &recorded)
	staging := b.TempDir() + "/staging"
	b.ReportAllocs()
	for b.Loop() {
		target, err := NewTarget(staging)
		if err != nil {
			b.Fatal(err)
		}
		wire := new(tape)
		wire.Write(recorded.Bytes())
		if _, err := wire.receive(context.Background(), target); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := target.Discard(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}
