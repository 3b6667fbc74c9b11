package transport

import (
	"io"
	"math/rand/v2"
	"testing"
)

// benchPages is memory as a busy process has it: a third noise, a third text,
// a third zeros.
func benchPages() Pages {
	data := make([]byte, MaxPagesPerFrame*PageSize)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range data[:len(data)/3] {
		data[i] = byte(r.Uint32())
	}
	for i := range data[len(data)/3 : 2*len(data)/3] {
		data[len(data)/3+i] = "set key:value 0123456789\r\n"[r.IntN(6)+i%20]
	}
	return Pages{SpaceTask, 1, 0x10000, MaxPagesPerFrame, PagePresent, data}
}

func BenchmarkPages(b *testing.B) {
	pages := benchPages()
	for _, codec := range codecs {
		b.Run(codec.String(), func(b *testing.B) {
			r, w := io.Pipe()
			out, in := NewConn(nil, w), NewConn(r, nil)
			out.SetCodec(codec)
			b.SetBytes(int64(len(pages.Data)))
			b.ReportAllocs()
			go func() {
				for range b.N {
					if err := out.WritePages(pages); err != nil {
						b.Error(err)
					}
				}
				w.CloseWithError(out.Flush())
			}()
			for range b.N {
				_, payload, err := in.ReadFrame()
				if err != nil {
					b.Fatal(err)
				}
				if _, err := ParsePages(payload); err != nil {
					b.Fatal(err)
				}
			}
			counts := in.Counts()
			b.ReportMetric(float64(counts.ReceivedBytes)/float64(counts.ReceivedPlain), "wire/plain")
		})
	}
}
