package migrate

import (
	"context"
	"encoding/binary"
	"errors"
	"testing"
	"time"

	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/transport"
	"github.com/vzkit/vzkit/transport/delta"
)

// signature is a frame with a part of the signature with that number.
func signature(n uint32, last byte, part []byte) []byte {
	return append(append(binary.BigEndian.AppendUint32(nil, n), last), part...)
}

// mustTake takes a frame that is in order.
func mustTake(t *testing.T, k *known, typ transport.Type, payload []byte) {
	t.Helper()
	if taken, err := k.take(typ, payload); !taken || err != nil {
		t.Fatalf("%s: %v, %v", typ, taken, err)
	}
}

func TestKnownBase(t *testing.T) {
	k := newKnown()
	if taken, err := k.take(transport.TypeFilesDone, nil); taken || err != nil {
		t.Errorf("files-done: %v, %v", taken, err)
	}
	file := append([]byte("\x00\x01d\x01f"), make([]byte, 7)...)
	mustTake(t, k, transport.TypeBaseFiles, append(append(file, 5), make([]byte, 16)...))
	go k.take(transport.TypeBaseEnd, []byte("{}"))
	b, err := k.base(t.Context())
	if err != nil || b == nil || b.Known.Len() != 1 {
		t.Fatal(b, err)
	}
	if size, ok := b.Known.At("d/f"); size != 5 || !ok {
		t.Error(size, ok)
	}
	for _, typ := range []transport.Type{transport.TypeBaseFiles, transport.TypeBaseEnd} {
		if _, err := k.take(typ, nil); fault.KindOf(err) != fault.Protocol {
			t.Errorf("%s after the end: %v", typ, err)
		}
	}
}

func TestKnownNothing(t *testing.T) {
	k := newKnown()
	mustTake(t, k, transport.TypeBaseEnd, []byte("{}"))
	if b, err := k.base(t.Context()); b != nil || err != nil {
		t.Error(b, err)
	}
}

// Signatures come in parts, in any order, and wait for whoever wants them.
func TestKnownSignatures(t *testing.T) {
	content := make([]byte, 100_000)
	want, err := delta.Sign(t.Context(), byteAt(content), int64(len(content)), nil)
	if err != nil {
		t.Fatal(err)
	}
	k, raw := newKnown(), want.Encode()
	mustTake(t, k, transport.TypeSignature, signature(2, 0, raw[:10]))
	mustTake(t, k, transport.TypeSignature, signature(1, 1, nil))
	go k.take(transport.TypeSignature, signature(2, 1, raw[10:]))
	for n, size := range map[uint32]int64{2: want.Size(), 1: 0} {
		if s, err := k.signature(t.Context(), n); err != nil || s.Size() != size {
			t.Errorf("signature %d: %v, want one of %d bytes", n, err, size)
		}
	}
	if k.bytes != 0 || len(k.parts)+len(k.whole) != 0 {
		t.Errorf("%d bytes are kept", k.bytes)
	}
	mustTake(t, k, transport.TypeSignature, signature(3, 1, raw[1:]))
	if _, err := k.signature(t.Context(), 3); fault.KindOf(err) != fault.Protocol {
		t.Error("malformed signature:", err)
	}
}

type byteAt []byte

func (b byteAt) ReadAt(p []byte, at int64) (int, error) { return copy(p, b[at:]), nil }

func TestKnownRefuses(t *testing.T) {
	for name, frames := range map[string]func(k *known) error{
		"short": func(k *known) error { _, err := k.take(transport.TypeSignature, make([]byte, 4)); return err },
		"twice": func(k *known) error {
			_, _ = k.take(transport.TypeSignature, signature(1, 1, nil))
			_, err := k.take(transport.TypeSignature, signature(1, 1, nil))
			return err
		},
		"last is 2": func(k *known) error { _, err := k.take(transport.TypeSignature, signature(1, 2, nil)); return err },
		"too long": func(k *known) (err error) {
			part := make([]byte, 1<<20)
			for i := 0; err == nil && i <= delta.MaxEncoded>>20+1; i++ {
				_, err = k.take(transport.TypeSignature, signature(1, 0, part))
			}
			return err
		},
		"too many": func(k *known) (err error) {
			for n := uint32(0); err == nil && n <= maxAheadSignatures; n++ {
				_, err = k.take(transport.TypeSignature, signature(n, 1, nil))
			}
			return err
		},
	} {
		if err := frames(newKnown()); fault.KindOf(err) != fault.Protocol {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Whoever waits hears of the end of the connection, and of its own.
func TestKnownEnds(t *testing.T) {
	k, gone := newKnown(), errors.New("gone")
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := k.base(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	go k.fail(gone)
	if _, err := k.signature(t.Context(), 1); !errors.Is(err, gone) {
		t.Error(err)
	}
}
