package memory

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/vzkit/vzkit/transport"
)

// overPipe is a sender whose frames go through a real pipe, and are thrown
// away at its other end.
func overPipe(b *testing.B, o Options) *Sender {
	b.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		b.Fatal(err)
	}
	go func() {
		sink := make([]byte, 1<<20)
		for err := error(nil); err == nil; {
			_, err = r.Read(sink)
		}
		r.Close()
	}()
	s, err := NewSender([]FrameWriter{transport.NewConn(nil, w)}, o)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { s.Close(); w.Close() })
	return s
}

// toNowhere is a sender whose frames are made whole and then dropped.
func toNowhere(b *testing.B, o Options) *Sender {
	b.Helper()
	s, err := NewSender([]FrameWriter{transport.NewConn(nil, nothing{})}, o)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(s.Close)
	return s
}

type nothing struct{}

func (nothing) Write(b []byte) (int, error) { return len(b), nil }

const benchPages = 16 << 10 // 64 MiB

// benchmark gives calls of MaxPages of data in turn; space tells where for each pass,
// and before may change it.
func benchmark(b *testing.B, s *Sender, data []byte, space func(pass int) uint64, before func(pass int, run []byte)) {
	b.SetBytes(MaxPages * pageSize)
	b.ResetTimer()
	const calls = benchPages / MaxPages
	for n := range b.N {
		at, pass := n%calls, n/calls
		run := data[at*MaxPages*pageSize:][:MaxPages*pageSize]
		before(pass, run)
		if err := s.Pages(space(pass), uint64(at*MaxPages*pageSize), MaxPages, run); err != nil {
			b.Fatal(err)
		}
	}
	if err := s.Flush(); err != nil {
		b.Fatal(err)
	}
	b.StopTimer()
	b.ReportMetric(float64(s.Counts().Wire)/float64(s.Counts().Plain), "wire/plain")
}

func one(int) uint64          { return 1 }
func fork(pass int) uint64    { return uint64(pass) }
func nothingMore(int, []byte) {}

// fresh makes every page another one, cheaply.
func fresh(pass int, run []byte) {
	for at := 0; at < len(run); at += pageSize {
		for i := 0; i < pageSize; i += 64 { // too many for a delta
			run[at+i], run[at+i+1], run[at+i+9] = byte(pass), byte(pass>>8), run[at+i+9]+1
			run[at+i+20], run[at+i+30], run[at+i+40], run[at+i+50] = byte(pass), byte(pass), byte(pass), byte(pass)
		}
	}
}

func BenchmarkRandom(b *testing.B) {
	for _, codec := range []string{"none", "auto"} {
		for _, cache := range []int{0, DefaultDeltaCache} {
			o := Options{codec, cache}
			b.Run(fmt.Sprintf("nowhere/%s/%dMiB", codec, cache>>20), func(b *testing.B) {
				benchmark(b, toNowhere(b, o), noise(1, benchPages), fork, fresh)
			})
			b.Run(fmt.Sprintf("pipe/%s/%dMiB", codec, cache>>20), func(b *testing.B) {
				benchmark(b, overPipe(b, o), noise(1, benchPages), fork, fresh)
			})
		}
	}
}

func BenchmarkZero(b *testing.B) {
	benchmark(b, overPipe(b, Options{"none", DefaultDeltaCache}), make([]byte, benchPages*pageSize), one, nothingMore)
}

func BenchmarkForked(b *testing.B) {
	benchmark(b, overPipe(b, Options{"none", DefaultDeltaCache}), noise(1, benchPages), fork, nothingMore)
}

func BenchmarkSame(b *testing.B) {
	benchmark(b, overPipe(b, Options{"none", DefaultDeltaCache}), noise(1, benchPages), one, nothingMore)
}

// BenchmarkChanged: 64 bytes of each page are others.
func BenchmarkChanged(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 1))
	benchmark(b, overPipe(b, Options{"none", DefaultDeltaCache}), noise(1, benchPages), one, func(_ int, run []byte) {
		for at := 0; at < len(run); at += pageSize {
			bits := r.Uint64()
			for i := range 64 {
				run[at+i*64+int(bits>>(i%50))&63]++
			}
		}
	})
}

func BenchmarkText(b *testing.B) {
	data := text(rand.New(rand.NewPCG(1, 1)), benchPages)
	for _, codec := range []string{"none", "lz4", "zstd", "auto"} {
		b.Run(codec, func(b *testing.B) {
			benchmark(b, overPipe(b, Options{codec, 0}), data, fork, func(pass int, run []byte) {
				for at := 0; at < len(run); at += pageSize {
					run[at]++
				}
			})
		})
	}
}

// flat is a Store that keeps 64 MiB, for all spaces the same.
type flat []byte

func (f flat) Put(_, address uint64, count uint32, data []byte) error {
	copy(f[address:][:uint64(count)*pageSize], data)
	return nil
}

func (f flat) Get(_, address uint64, page []byte) (bool, error) {
	copy(page, f[address:])
	return true, nil
}

// BenchmarkMove is the whole way of random pages, to a store in memory.
func BenchmarkMove(b *testing.B) {
	r, w, err := os.Pipe()
	if err != nil {
		b.Fatal(err)
	}
	s, err := NewSender([]FrameWriter{transport.NewConn(nil, w)}, Options{"none", DefaultDeltaCache})
	if err != nil {
		b.Fatal(err)
	}
	done := make(chan error)
	go func() { done <- receive(transport.NewConn(r, nil), NewReceiver(make(flat, benchPages*pageSize))) }()
	benchmark(b, s, noise(1, benchPages), fork, fresh)
	s.Close()
	w.Close()
	if err := <-done; err != io.EOF {
		b.Error(err)
	}
	r.Close()
}

func receive(c *transport.Conn, r *Receiver) error {
	for {
		_, payload, err := c.ReadFrame()
		if err == nil {
			err = r.Frame(payload)
		}
		if err != nil {
			return err
		}
	}
}
