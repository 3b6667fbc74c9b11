package blocks

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/vzkit/vzkit/transport"
)

// FuzzExtents: what is accepted lies within the image.
func FuzzExtents(f *testing.F) {
	for _, x := range []frame{data(0, full("x", 1)), data(small-Block, full("x", 1)), holeAt(0, small), holeAt(1<<63, 1<<63), holeAt(small, Block)} {
		f.Add([]byte(x.payload))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		e, content, err := parseData(b, small)
		if err == nil && (e.offset < 0 || e.offset+e.length > small || int64(len(content)) != e.length || e.length%Block != 0) {
			t.Errorf("data %+v of %d bytes", e, len(b))
		}
		e, err = parseHole(b, small)
		if err == nil && (e.offset < 0 || e.length <= 0 || e.offset+e.length > small || !bytes.Equal(e.append(nil), b)) {
			t.Errorf("hole %+v", e)
		}
	})
}

// FuzzReceive: whatever arrives, nothing but the image changes, and not its
// size.
func FuzzReceive(f *testing.F) {
	for _, frames := range [][]frame{
		{begin(1, false), data(0, full("x", 2)), end(2*Block, 0), begin(2, true), holeAt(Block, Block), end(0, Block)},
		{begin(1, true), holeAt(0, small), data(small-Block, full("x", 1)), end(Block, small)},
		{begin(1, false), {transport.TypeAbort, ""}},
		{begin(1, false), data(1<<64-Block, full("x", 1))},
	} {
		f.Add(new(tape).put(f, frames...).Bytes())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		target, path := newTarget(t, small)
		wire := new(tape)
		wire.Write(b)
		if wire.receive(t, target) == nil {
			_ = target.Finish() // the last pass may not have come
		}
		info, err := os.Stat(path)
		ok(t, err)
		left, err := os.ReadDir(filepath.Dir(path))
		ok(t, err)
		if info.Size() != small || len(left) != 1 {
			t.Errorf("%d bytes, beside it %v", info.Size(), left)
		}
	})
}
