package migrate

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/internal/version"
	"github.com/vzkit/vzkit/transport"
)

// Dialer makes a connection to a new receiver on the destination.
type Dialer func(ctx context.Context) (io.ReadWriteCloser, error)

// farewell is how long a peer may take to hear the end of a migration that has
// failed or was interrupted, before the connection is cut.
const farewell = 5 * time.Second

// maxAhead is how many frames the peer may be ahead of what is expected of it;
// the reader must get past them to the error or the end behind.
const maxAhead = 16

// peer is the source's view of the destination. A goroutine reads its frames,
// so that an error of the peer's is seen at once, also in the middle of a
// long stream.
type peer struct {
	*transport.Conn
	link   io.Closer
	frames chan frame
	base   *known        // of the destination
	done   chan struct{} // closed by close
	once   sync.Once
}

type frame struct {
	typ     transport.Type
	payload []byte
	err     error
}

// hello is this side's greeting.
func hello(role, hostID string) transport.Hello {
	return transport.Hello{
		MinVersion: transport.Version, MaxVersion: transport.Version,
		Program: version.String, Role: role, HostID: hostID,
	}
}

// A peer with a round trip below nearby needs no more on its way than
// aheadNearby, which spares its sshd (see transport.Conn.SetAhead). One that is
// farther away does, and its network keeps from filling that.
const (
	nearby      = time.Millisecond
	aheadNearby = 768 << 10
)

// connect greets the peer on link and begins to read. fail is called with the
// first error, at most once.
func connect(link io.ReadWriteCloser, hostID string, fail func(error)) (*peer, error) {
	p := &peer{Conn: transport.NewConn(link, link), link: link, frames: make(chan frame, maxAhead), base: newKnown(), done: make(chan struct{})}
	theirs, _, err := p.Handshake(hello(transport.RoleSender, hostID))
	if err != nil {
		link.Close()
		return nil, err
	}
	if theirs.HostID == hostID {
		link.Close()
		return nil, fault.New(fault.SameHost, "source and destination are the same host").
			WithHint("Name another host as the destination.")
	}
	if d, ok := link.(interface{ RoundTrip() time.Duration }); ok && d.RoundTrip() > 0 && d.RoundTrip() < nearby {
		p.SetAhead(aheadNearby)
	}
	go p.read(fail)
	go ping(p.Conn, p.done)
	return p, nil
}

// read passes control frames on. They are few and small, so each is copied.
// What is about the destination's base is more, and goes another way.
func (p *peer) read(fail func(error)) {
	defer close(p.frames)
	for {
		typ, payload, err := p.ReadFrame()
		if errors.Is(err, io.EOF) {
			err = fault.New(fault.Connect, "destination closed the connection")
		}
		taken := false
		if err == nil {
			taken, err = p.base.take(typ, payload)
		}
		if err != nil {
			fail(err)
			p.base.fail(err)
			p.frames <- frame{err: err}
			return
		}
		if taken {
			continue
		}
		p.frames <- frame{typ: typ, payload: append([]byte(nil), payload...)}
	}
}

// expect waits for the next frame, which must be of type t, and decodes it
// into v unless v is nil.
func (p *peer) expect(ctx context.Context, t transport.Type, v any) error {
	f, err := p.next(ctx, t)
	if err != nil || v == nil {
		return err
	}
	return transport.DecodeJSON(f.typ, f.payload, v)
}

// next waits for the next frame, which must be of one of the types.
func (p *peer) next(ctx context.Context, types ...transport.Type) (frame, error) {
	if err := p.Flush(); err != nil {
		return frame{}, err
	}
	select {
	case <-ctx.Done():
		return frame{}, context.Cause(ctx)
	case f, ok := <-p.frames:
		switch {
		case !ok:
			return f, fault.New(fault.Connect, "connection to the destination is closed")
		case f.err == nil && !slices.Contains(types, f.typ):
			return f, fault.New(fault.Protocol, "destination sent %s, want %s", f.typ, types[0])
		}
		return f, f.err
	}
}

// close cuts the connection and ends the reader. Closing twice is fine.
func (p *peer) close() {
	p.once.Do(func() {
		close(p.done)
		p.link.Close()
		go func() {
			for range p.frames { // the reader must not hang on a frame nobody takes
			}
		}()
	})
}

// abort tells the destination that the move is off and waits, for a while,
// until it has cleaned up.
func (p *peer) abort() {
	timer := time.AfterFunc(farewell, p.close)
	defer timer.Stop()
	if p.WriteJSON(transport.TypeAbort, nil) == nil && p.Flush() == nil {
		for f := range p.frames {
			if f.err != nil || f.typ == transport.TypeAborted {
				break
			}
		}
	}
	p.close()
}
