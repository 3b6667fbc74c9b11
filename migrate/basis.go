package migrate

import (
	"context"
	"time"

	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/transport"
	"github.com/vzkit/vzkit/transport/files"
)

// basis answers for the tree that this host has and that is like the one to
// come, if there is any: it tells the source what is in it, while the source may
// call the migration off, and signs files of it.
type basis struct {
	conn   *transport.Conn
	base   *files.Base // nil if there is none
	ctx    context.Context
	cancel context.CancelFunc
	told   chan struct{} // closed when the source has been told all
	err    error         // of telling
	signer *files.Signer // in a pass that asked for something
}

// newBasis begins to tell what is in base, for no longer than limit: what was
// not told by then is not used. The basis closes base.
func newBasis(ctx context.Context, conn *transport.Conn, base *files.Base, limit time.Duration) *basis {
	b := &basis{conn: conn, base: base, told: make(chan struct{})}
	b.ctx, b.cancel = context.WithCancel(ctx)
	go func() {
		defer close(b.told)
		b.err = b.tell(limit)
	}()
	return b
}

// tell sends base-files and, in any case, base-end.
func (b *basis) tell(limit time.Duration) error {
	var told struct {
		Files int `json:"files"`
	}
	if b.base != nil {
		ctx, cancel := context.WithTimeout(b.ctx, limit)
		defer cancel()
		var err error
		if told.Files, err = b.base.List(ctx, b.conn); err == nil || b.ctx.Err() != nil {
			return err
		}
	}
	return b.conn.WriteJSON(transport.TypeBaseEnd, told)
}

// await waits until the source has been told.
func (b *basis) await() error {
	<-b.told
	return b.err
}

// sign takes a file-sign frame.
func (b *basis) sign(payload []byte) error {
	if b.base == nil {
		return fault.New(fault.Protocol, "%s, but there is no base", transport.TypeFileSign)
	}
	if b.signer == nil {
		b.signer = b.base.NewSigner(b.ctx, b.conn)
	}
	return b.signer.Request(payload)
}

// endPass waits for what is being signed, unless the pass has failed with err.
func (b *basis) endPass(err error) error {
	s := b.signer
	if b.signer = nil; s == nil {
		return err
	}
	if err != nil {
		b.cancel()
	}
	if serr := s.Close(); err == nil {
		err = serr
	}
	return err
}

// close lets go of the base. Closing twice is fine.
func (b *basis) close() error {
	b.cancel()
	<-b.told
	_ = b.endPass(context.Canceled)
	base := b.base
	if b.base = nil; base == nil {
		return nil
	}
	return base.Close()
}

// receivePass receives one pass; the first must not come before all that is in
// the base has been told.
func (d *destination) receivePass(ctx context.Context, begin []byte) error {
	if !d.begun {
		if err := d.basis.await(); err != nil {
			return err
		}
		if base := d.basis.base; base != nil && d.tree != nil {
			d.tree.UseBase(base.Root())
		}
		d.begun = true
	}
	var err error
	if d.image != nil {
		_, err = d.image.Receive(ctx, stateReader{d}, begin)
	} else {
		_, err = d.tree.Receive(ctx, stateReader{d}, begin)
	}
	if err = d.basis.endPass(err); err == nil {
		d.passed = true
	}
	return err
}

// stateReader leaves out what comes in between of a running container's state,
// which may be dumped while a pass over its files goes on, and what is asked of
// the base.
type stateReader struct{ d *destination }

func (r stateReader) ReadFrame() (transport.Type, []byte, error) {
	for {
		typ, payload, err := r.d.conn.ReadFrame()
		switch {
		case err != nil:
			return 0, nil, err
		case typ == transport.TypeFileSign:
			err = r.d.basis.sign(payload)
		case typ >= transport.TypeMemoryBegin && typ <= transport.TypeLayout:
			err = r.d.takeState(typ, payload)
		default:
			return typ, payload, nil
		}
		if err != nil {
			return 0, nil, err
		}
	}
}
