package transport

import (
	"io"
	"testing"
	"time"
)

const (
	aheadLimit = 256 << 10
	aheadFrame = 32 << 10
)

// apart is a writer that may be aheadLimit ahead, and its reader at the other
// end. Pipes keep nothing: all that is on its way waits in buffers of Conns.
func apart(t *testing.T) (w, r *Conn, cut func()) {
	t.Helper()
	wr, rw := io.Pipe()
	rr, ww := io.Pipe()
	w, r = NewConn(rr, newBacklog(t, rw)), NewConn(wr, ww)
	w.SetAhead(aheadLimit)
	r.Tell()
	go func() {
		for {
			if _, _, err := w.ReadFrame(); err != nil {
				return
			}
		}
	}()
	cut = func() { wr.Close(); ww.Close() }
	t.Cleanup(cut)
	return w, r, cut
}

// newBacklog is a writer that takes everything at once, as an sshd does.
func newBacklog(t *testing.T, w io.Writer) io.Writer {
	queue := make(chan []byte, 1<<12)
	t.Cleanup(func() { close(queue) })
	go func() {
		for b := range queue {
			if _, err := w.Write(b); err != nil {
				for range queue {
				}
			}
		}
	}()
	return writerFunc(func(b []byte) (int, error) {
		queue <- append([]byte(nil), b...)
		return len(b), nil
	})
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

func TestWriterIsNotFarAhead(t *testing.T) {
	w, r, _ := apart(t)
	const frames = 200
	done := make(chan error, 1)
	go func() {
		payload := make([]byte, aheadFrame)
		for range frames {
			if err := w.WriteFrame(TypeFileData, payload); err != nil {
				done <- err
				return
			}
		}
		done <- w.Flush()
	}()
	for range frames {
		if _, _, err := r.ReadFrame(); err != nil {
			t.Fatal(err)
		}
		ahead := w.Counts().SentBytes - r.Counts().ReceivedBytes
		if most := uint64(aheadLimit + tellEvery + 2*aheadFrame); ahead < 1<<63 && ahead > most {
			t.Fatalf("%d bytes ahead, more than %d", ahead, most)
		}
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestControlFramesGoAhead: what nobody takes keeps stream frames back only.
func TestControlFramesGoAhead(t *testing.T) {
	w, _, _ := apart(t)
	for w.Counts().SentBytes <= aheadLimit {
		if err := w.WriteFrame(TypeFileData, make([]byte, aheadFrame)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.WriteJSON(TypeFilesEnd, nil); err != nil {
		t.Error(err)
	}
}

func TestEndOfConnectionLetsWriterGo(t *testing.T) {
	w, _, cut := apart(t)
	done := make(chan bool)
	go func() {
		defer close(done)
		for range 2 * aheadLimit / aheadFrame {
			_ = w.WriteFrame(TypeFileData, make([]byte, aheadFrame))
		}
	}()
	select {
	case <-done:
		t.Fatal("the writer did not wait")
	case <-time.After(50 * time.Millisecond):
	}
	cut()
	<-done
}

func TestMalformedPing(t *testing.T) {
	r, w := io.Pipe()
	go func() { _ = NewConn(nil, w).WriteFrame(TypePing, []byte{1, 2, 3}) }()
	if _, _, err := NewConn(r, io.Discard).ReadFrame(); err == nil {
		t.Error("a ping of 3 bytes passes")
	}
}
