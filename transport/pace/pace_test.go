package pace

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vzkit/vzkit/internal/fault"
)

// TestRate writes for simulated seconds at slow and fast limits, in small and
// large pieces, from several writers.
func TestRate(t *testing.T) {
	for _, limit := range []int64{64 << 10, 1 << 20, 125e6} {
		for _, piece := range []int{int(limit / 500), 32 << 10, 4 << 20} {
			for _, writers := range []int64{1, 3} {
				synctest.Test(t, func(t *testing.T) {
					l := NewLimiter(limit)
					total := max(limit*2, int64(piece)) / writers / int64(piece) * int64(piece) * writers
					start := time.Now()
					var all sync.WaitGroup
					for range writers {
						all.Go(func() { writePieces(t, NewWriter(t.Context(), io.Discard, l), total/writers, piece) })
					}
					all.Wait()
					want := time.Duration(float64(total) / float64(limit) * float64(time.Second))
					if got := time.Since(start); got < want-time.Millisecond || got > want+want/20+time.Millisecond {
						t.Errorf("%d bytes at %d per second, pieces of %d: %v instead of %v", total, limit, piece, got, want)
					}
				})
			}
		}
	}
}

func writePieces(t *testing.T, w io.Writer, total int64, piece int) {
	b := make([]byte, piece)
	for n := int64(0); n < total; n += int64(piece) {
		if m, err := w.Write(b); m != piece || err != nil {
			t.Errorf("wrote %d of %d: %v", m, piece, err)
			return
		}
	}
}

// TestBurstAfterRest: an hour without a byte saves up no more than one burst.
func TestBurstAfterRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit = 1 << 20
		w := NewWriter(t.Context(), io.Discard, NewLimiter(limit))
		time.Sleep(time.Hour)
		start := time.Now()
		writePieces(t, w, limit, limit)
		want := time.Second - time.Second/burstsPerS
		if got := time.Since(start); got < want-time.Millisecond {
			t.Errorf("a second's bytes went out in %v", got)
		}
	})
}

// TestSetLimitFreesWaiters: whoever waits goes by the new limit at once.
func TestSetLimitFreesWaiters(t *testing.T) {
	for _, c := range []struct {
		limit int64
		want  time.Duration
	}{{0, 0}, {1 << 20, time.Second}} {
		synctest.Test(t, func(t *testing.T) {
			l := NewLimiter(1 << 10)
			done := make(chan time.Time)
			go func() {
				writePieces(t, NewWriter(t.Context(), io.Discard, l), 1<<20, 1<<20)
				done <- time.Now()
			}()
			time.Sleep(time.Second / 2) // not one step of 4 KiB could go yet
			start := time.Now()
			l.SetLimit(c.limit)
			if got := (<-done).Sub(start); got < c.want-time.Millisecond || got > c.want+50*time.Millisecond {
				t.Errorf("after SetLimit(%d): %v", c.limit, got)
			}
		})
	}
}

func TestWaitEndsWithContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		n, err := NewWriter(ctx, io.Discard, NewLimiter(1<<10)).Write(make([]byte, 1<<20))
		if fault.KindOf(err) != fault.Interrupted || !errors.Is(err, context.DeadlineExceeded) || n != 0 {
			t.Errorf("wrote %d, %v", n, err)
		}
		if time.Since(start) != time.Second {
			t.Errorf("waited %v", time.Since(start))
		}
	})
}

// TestWriterKeepsContent by the real clock: it must not be faster than allowed.
func TestWriterKeepsContent(t *testing.T) {
	var out bytes.Buffer
	in := bytes.Repeat([]byte("0123456789"), 40<<10)
	const limit = 1 << 20
	start := time.Now()
	n, err := NewWriter(t.Context(), &out, NewLimiter(limit)).Write(in)
	least := time.Duration(len(in)-burst(limit)) * time.Second / limit
	if got := time.Since(start); got < least {
		t.Errorf("%d bytes in %v, at least %v", n, got, least)
	}
	if n != len(in) || err != nil || !bytes.Equal(out.Bytes(), in) {
		t.Errorf("wrote %d of %d: %v", n, len(in), err)
	}
}

// full takes some bytes and then no more.
type full struct{ room int }

func (f *full) Write(b []byte) (int, error) {
	n := min(len(b), f.room)
	f.room -= n
	if n < len(b) {
		return n, io.ErrShortWrite
	}
	return n, nil
}

func TestWriterReturnsErrors(t *testing.T) {
	n, err := NewWriter(t.Context(), &full{5000}, NewLimiter(0)).Write(make([]byte, 9000))
	if n != 5000 || err != io.ErrShortWrite {
		t.Errorf("wrote %d, %v", n, err)
	}
}

func TestParseLimit(t *testing.T) {
	for s, want := range map[string]int64{
		"0": 0, "0M": 0, "65536": 65536, "64k": 64 << 10, "64K": 64 << 10, "10M": 10 << 20, "10m": 10 << 20, "1G": 1 << 30,
		"1.5M": 3 << 19, "2MiB": 2 << 20, "2MB": 2e6, "2kB": 2000, "3gib": 3 << 30, ".5M": 1 << 19,
	} {
		got, err := ParseLimit(s)
		if got != want || err != nil {
			t.Errorf("%s = %d, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "M", "-1", "+1M", "10T", "10 M", "1e6", "0x10k", "inf", "nan", "1_000", "1.2.3", "1023", "1kB", "99999999999G", "10Mb/s"} {
		got, err := ParseLimit(s)
		if fault.KindOf(err) != fault.BadValue || fault.HintOf(err) == "" || !strings.Contains(err.Error(), `"`+s+`"`) {
			t.Errorf("%s = %d, %v", s, got, err)
		}
	}
}

// TestPolite looks at every thread, with new ones being made all the time, and
// at a child.
func TestPolite(t *testing.T) {
	before, err := priorityOf(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	more := makeThreads(4)
	defer close(more)
	restore, err := Polite()
	if err != nil {
		t.Fatal(err)
	}
	even := makeThreads(16)
	defer close(even)
	polite := priority{ioprioIdle, max(politeNice, before.nice)}
	checkThreads(t, polite)
	out, err := exec.Command("sh", "-c", "ionice; nice").Output()
	if err != nil || !strings.HasPrefix(string(out), "idle") || !strings.Contains(string(out), "10") && before.nice < politeNice {
		t.Errorf("child: %q, %v", out, err)
	}
	if err := restore(); err != nil {
		t.Error(err)
	}
	checkThreads(t, before)
}

// makeThreads starts n threads that end when the channel is closed.
func makeThreads(n int) chan struct{} {
	stop := make(chan struct{})
	var started sync.WaitGroup
	for range n {
		started.Add(1)
		go func() {
			runtime.LockOSThread()
			started.Done()
			<-stop
		}()
	}
	started.Wait()
	return stop
}

func checkThreads(t *testing.T, want priority) {
	t.Helper()
	tids, err := threads()
	if err != nil || len(tids) < 5 {
		t.Fatalf("threads %v, %v", tids, err)
	}
	for _, tid := range tids {
		if got, err := priorityOf(tid); err == nil && got != want {
			t.Errorf("thread %d has %+v instead of %+v", tid, got, want)
		}
	}
}
