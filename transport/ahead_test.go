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
	go func() {
		for {
			if _, _, err := w.ReadFrame(); err != nil {
				return
			}
		}
	}()
	r.Tell()
	for tells := false; !tells; time.Sleep(time.Millisecond) {
		w.flow.mu.Lock()
		tells = w.flow.tells
		w.flow.mu.Unlock()
	}
	cut = func() { wr.Close(); ww.Close() }
	t.Cleanup(cut)
	return w, r, cut
}

// newBacklog is a writer that takes everything at once, as an sshd does.
func newBacklog(t *testing.T, w io.Writer) io.Writer {
	queue, ended := make(chan []byte, 1<<12), make(chan struct{})
	t.Cleanup(func() { close(ended) })
	go func() {
		for {
			select {
			case b := <-queue:
				_, _ = w.Write(b) // fails once the connection is cut
			case <-ended:
				return
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

// stuck is a writer that its reader, after a first word, keeps waiting.
func stuck(t *testing.T) (w *Conn, cut func(), wrote <-chan bool) {
	t.Helper()
	w, r, cut := apart(t)
	done := make(chan bool)
	go func() {
		defer close(done)
		for range 4 * aheadLimit / aheadFrame {
			_ = w.WriteFrame(TypeFileData, make([]byte, aheadFrame))
		}
	}()
	for r.Counts().ReceivedBytes < tellEvery {
		if _, _, err := r.ReadFrame(); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case <-done:
		t.Fatal("the writer did not wait")
	case <-time.After(50 * time.Millisecond):
	}
	return w, cut, done
}

// TestControlFramesGoAhead: what nobody takes keeps stream frames back only.
func TestControlFramesGoAhead(t *testing.T) {
	w, _, _ := stuck(t)
	if err := w.WriteJSON(TypeFilesEnd, nil); err != nil {
		t.Error(err)
	}
}

func TestEndOfConnectionLetsWriterGo(t *testing.T) {
	_, cut, done := stuck(t)
	cut()
	<-done
}

// TestReaderThatDoesNotTell is not waited for.
func TestReaderThatDoesNotTell(t *testing.T) {
	w := NewConn(nil, io.Discard)
	w.SetAhead(aheadLimit)
	for range 4 * aheadLimit / aheadFrame {
		if err := w.WriteFrame(TypeFileData, make([]byte, aheadFrame)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestMalformedPing(t *testing.T) {
	r, w := io.Pipe()
	go func() { _ = NewConn(nil, w).WriteFrame(TypePing, []byte{1, 2, 3}) }()
	if _, _, err := NewConn(r, io.Discard).ReadFrame(); err == nil {
		t.Error("a ping of 3 bytes passes")
	}
}
