package migrate

import (
	"context"
	"encoding/binary"
	"sync"

	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/transport"
	"github.com/vzkit/vzkit/transport/delta"
	"github.com/vzkit/vzkit/transport/files"
)

// Signatures that a destination may send ahead of their use: more than a source
// asks for, so whoever exceeds them was not asked.
const (
	maxAheadSignatures = 64
	maxAheadBytes      = 256 << 20
)

// known is what the destination has told of its base. The reader of its frames
// puts it in, and never waits; the passes over the files take it out.
type known struct {
	mu      sync.Mutex
	files   *files.Known
	ended   bool
	parts   map[uint32][]byte // signatures, not all here yet
	whole   map[uint32][]byte
	bytes   int           // of both
	changed chan struct{} // closed, and another one made, with every change
	err     error         // of the connection
}

func newKnown() *known {
	return &known{files: files.NewKnown(), parts: map[uint32][]byte{}, whole: map[uint32][]byte{}, changed: make(chan struct{})}
}

// take takes a frame in if it is about the base.
func (k *known) take(typ transport.Type, payload []byte) (taken bool, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch typ {
	case transport.TypeBaseFiles, transport.TypeBaseEnd:
		if k.ended {
			return true, fault.New(fault.Protocol, "destination sent %s after the end of its base", typ)
		}
		if typ == transport.TypeBaseFiles {
			return true, k.files.Add(payload)
		}
		k.ended = true
	case transport.TypeSignature:
		if err := k.sign(payload); err != nil {
			return true, err
		}
	default:
		return false, nil
	}
	k.wake()
	return true, nil
}

// sign takes a part of a signature in.
func (k *known) sign(payload []byte) error {
	const head = 5
	if len(payload) < head || payload[4] > 1 {
		return fault.New(fault.Protocol, "malformed frame %s of %d bytes", transport.TypeSignature, len(payload))
	}
	n, last, data := binary.BigEndian.Uint32(payload), payload[4] == 1, payload[head:]
	if _, twice := k.whole[n]; twice {
		return fault.New(fault.Protocol, "destination sent signature %d twice", n)
	}
	k.bytes += len(data)
	part := append(k.parts[n], data...)
	if k.parts[n] = part; len(part) > delta.MaxEncoded || k.bytes > maxAheadBytes || len(k.parts)+len(k.whole) > maxAheadSignatures {
		return fault.New(fault.Protocol, "destination sent too much of signatures, number %d is the last", n)
	}
	if last {
		delete(k.parts, n)
		k.whole[n] = part
	}
	return nil
}

func (k *known) wake() {
	close(k.changed)
	k.changed = make(chan struct{})
}

// fail ends all waiting: nothing more will come.
func (k *known) fail(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.err == nil {
		k.err = err
	}
	k.wake()
}

// await returns when ready does, which is asked after every change.
func (k *known) await(ctx context.Context, ready func() bool) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	for !ready() {
		if k.err != nil {
			return k.err
		}
		changed := k.changed
		k.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
		}
		k.mu.Lock()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	return nil
}

// base waits until the destination has told all of its base; nil if it has none.
func (k *known) base(ctx context.Context) (*files.SourceBase, error) {
	if err := k.await(ctx, func() bool { return k.ended }); err != nil {
		return nil, err
	}
	if k.files.Len() == 0 {
		return nil, nil
	}
	return &files.SourceBase{Known: k.files, Signature: k.signature}, nil
}

// signature waits for the one with that number, and forgets it.
func (k *known) signature(ctx context.Context, n uint32) (*delta.Signature, error) {
	var raw []byte
	err := k.await(ctx, func() (here bool) {
		if raw, here = k.whole[n]; here {
			delete(k.whole, n)
			k.bytes -= len(raw)
		}
		return here
	})
	if err != nil {
		return nil, err
	}
	s, err := delta.Parse(raw)
	return s, fault.Wrap(fault.Protocol, err)
}
