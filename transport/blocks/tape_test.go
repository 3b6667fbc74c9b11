package blocks

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/transport"
)

// frame is one frame as a test writes it.
type frame struct {
	typ     transport.Type
	payload string
}

// tape is a connection that has been written to, to be read.
type tape struct{ bytes.Buffer }

func (t *tape) conn() *transport.Conn { return transport.NewConn(&t.Buffer, &t.Buffer) }

func (t *tape) put(tb testing.TB, frames ...frame) *tape {
	tb.Helper()
	c := t.conn()
	for _, f := range frames {
		ok(tb, c.WriteFrame(f.typ, []byte(f.payload)))
	}
	ok(tb, c.Flush())
	return t
}

// receive gives a target all passes that are on the tape.
func (t *tape) receive(tb testing.TB, target *Target) error {
	tb.Helper()
	c := t.conn()
	for {
		typ, payload, err := c.ReadFrame()
		if err == io.EOF {
			return nil
		}
		if err == nil && typ != transport.TypeBlocksBegin {
			err = hostile("frame %v", typ)
		}
		if err == nil {
			_, err = target.Receive(tb.Context(), c, append([]byte(nil), payload...))
		}
		if err != nil {
			return err
		}
	}
}

// newTarget makes a target in a directory of its own.
func newTarget(tb testing.TB, size int64) (*Target, string) {
	tb.Helper()
	dir, err := os.Open(tb.TempDir())
	ok(tb, err)
	defer dir.Close()
	target, err := NewTarget(dir, "image", size)
	ok(tb, err)
	tb.Cleanup(func() { target.Close() })
	return target, filepath.Join(dir.Name(), "image")
}

func ok(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

func wantKind(tb testing.TB, what string, err error, kind fault.Kind) {
	tb.Helper()
	if fault.KindOf(err) != kind || err == nil {
		tb.Errorf("%s: %v, want kind %v", what, err, kind)
	}
}
