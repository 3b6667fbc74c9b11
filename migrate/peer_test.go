package migrate

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"

	"go.uber.org/goleak"

	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/transport"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	ourID   = "11111111-0000-4000-8000-000000000000"
	theirID = "22222222-0000-4000-8000-000000000000"
)

// far is a destination's end of a connection; serve plays it, after the
// greeting, and the connection is closed when it returns.
func far(hostID string, serve func(*transport.Conn)) net.Conn {
	near, end := net.Pipe()
	go func() {
		defer end.Close()
		conn := transport.NewConn(end, end)
		if _, _, err := conn.Handshake(hello(transport.RoleReceiver, hostID)); err == nil && serve != nil {
			serve(conn)
		}
	}()
	return near
}

// dial connects to a far end; failed gets what the reader finds wrong.
func dial(t *testing.T, serve func(*transport.Conn)) (p *peer, failed chan error) {
	t.Helper()
	failed = make(chan error, 1)
	p, err := connect(far(theirID, serve), ourID, func(err error) { failed <- err })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.close)
	return p, failed
}

func TestExpect(t *testing.T) {
	p, _ := dial(t, func(c *transport.Conn) {
		_ = c.WriteJSON(transport.TypeAccept, nil)
		_ = c.WriteJSON(transport.TypeOffer, Attach{ID: "x", CTID: 101})
		_, _, _ = c.ReadFrame()
	})
	if err := p.expect(t.Context(), transport.TypeAccept, nil); err != nil {
		t.Fatal(err)
	}
	var got Attach
	if err := p.expect(t.Context(), transport.TypeOffer, &got); err != nil || got != (Attach{"x", 101}) {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestExpectRefusals(t *testing.T) {
	for name, c := range map[string]struct {
		serve func(*transport.Conn)
		kind  fault.Kind
		want  string
	}{
		"closed":      {func(*transport.Conn) {}, fault.Connect, "destination closed the connection"},
		"wrong frame": {func(c *transport.Conn) { _ = c.WriteJSON(transport.TypeResumed, nil) }, fault.Protocol, "destination sent resumed, want accept"},
		"no JSON":     {func(c *transport.Conn) { _ = c.WriteFrame(transport.TypeAccept, []byte("{")) }, fault.Protocol, "json"},
		"its error": {func(c *transport.Conn) {
			_ = c.SendError(fault.New(fault.AddressUsed, "address 10.0.0.2 is in use").WithHint("Look there."))
		}, fault.AddressUsed, "address 10.0.0.2 is in use"},
	} {
		p, _ := dial(t, c.serve)
		wantFault(t, name, p.expect(t.Context(), transport.TypeAccept, &struct{}{}), c.kind, c.want)
		p.close()
		p.close()
	}
}

// What goes wrong at the destination is heard at once, also by a source that
// is waiting for nothing.
func TestPeerReportsFailure(t *testing.T) {
	refusal := fault.New(fault.NoSpace, "disk is full")
	_, failed := dial(t, func(c *transport.Conn) { _ = c.SendError(refusal) })
	wantFault(t, "error frame", <-failed, fault.NoSpace, "disk is full")
	_, failed = dial(t, func(*transport.Conn) {})
	wantFault(t, "end", <-failed, fault.Connect, "destination closed the connection")
}

func TestExpectAfterClose(t *testing.T) {
	p, failed := dial(t, func(c *transport.Conn) { _, _, _ = c.ReadFrame() })
	p.close()
	wantFault(t, "reader", <-failed, fault.Connect, "")
	if err := p.expect(t.Context(), transport.TypeAccept, nil); fault.KindOf(err) != fault.Connect {
		t.Errorf("expect: %v", err)
	}
}

func TestExpectInterrupted(t *testing.T) {
	p, _ := dial(t, func(c *transport.Conn) { _, _, _ = c.ReadFrame() })
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("ctrl-c")
	cancel(cause)
	if err := p.expect(ctx, transport.TypeAccept, nil); !errors.Is(err, cause) {
		t.Errorf("expect: %v", err)
	}
}

func TestConnectRefusals(t *testing.T) {
	never := func(err error) { t.Errorf("reader of a refused connection: %v", err) }
	_, err := connect(far(ourID, nil), ourID, never)
	wantFault(t, "same host", err, fault.SameHost, "are the same host")
	if fault.HintOf(err) == "" {
		t.Error("no hint")
	}
	near, end := net.Pipe()
	go func() {
		_, _ = io.WriteString(end, "Welcome to this machine!\n")
		_, _ = io.Copy(io.Discard, end)
	}()
	_, err = connect(near, ourID, never)
	wantFault(t, "a login shell", err, fault.Protocol, "Welcome to this machine!")
	alone, gone := net.Pipe()
	gone.Close()
	_, err = connect(alone, ourID, never)
	wantFault(t, "nobody", err, fault.Connect, "")
}

func TestAbort(t *testing.T) {
	heard := make(chan transport.Type, 1)
	p, _ := dial(t, func(c *transport.Conn) {
		_ = c.WriteJSON(transport.TypeFilesDone, nil) // which crosses the abort
		typ, _, _ := c.ReadFrame()
		heard <- typ
		_ = c.WriteJSON(transport.TypeAborted, nil)
	})
	p.abort()
	if typ := <-heard; typ != transport.TypeAbort {
		t.Errorf("destination heard %s", typ)
	}
	p.abort() // and again, on a connection that is gone
}
