package files

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"io"
	"testing"

	"github.com/vzkit/vzkit/transport"
)

var (
	_ FrameWriter           = (*transport.Conn)(nil)
	_ transport.FrameReader = (*transport.Conn)(nil)
)

// tape is a connection in memory: what is written can be read later. Like the
// real one it reuses the payload's memory.
type tape struct {
	bytes.Buffer
	payload []byte
}

func (p *tape) WriteFrame(t transport.Type, parts ...[]byte) error {
	n := 0
	for _, b := range parts {
		n += len(b)
	}
	p.WriteByte(byte(t))
	p.Write(binary.BigEndian.AppendUint32(nil, uint32(n)))
	for _, b := range parts {
		p.Write(b)
	}
	return nil
}

func (p *tape) Flush() error { return nil }

func (p *tape) ReadFrame() (transport.Type, []byte, error) {
	var head [5]byte
	if _, err := io.ReadFull(p, head[:]); err != nil {
		return 0, nil, err
	}
	for i := range p.payload {
		p.payload[i] = 0xee
	}
	n := binary.BigEndian.Uint32(head[1:])
	if n > 1<<20 {
		return 0, nil, io.ErrUnexpectedEOF
	}
	if int(n) > len(p.payload) {
		p.payload = make([]byte, n)
	}
	_, err := io.ReadFull(p, p.payload[:n])
	return transport.Type(head[0]), p.payload[:n], err
}

// frames writes the parts as one pass with matching counts.
func (p *tape) frames(fs ...frame) *tape {
	var end passEnd
	p.json(transport.TypeFilesBegin, passBegin{Pass: 1})
	for _, f := range fs {
		p.WriteFrame(f.t, f.payload)
		switch f.t {
		case transport.TypeFileEntry:
			end.Entries++
		case transport.TypeFileDelete:
			end.Deleted++
		case transport.TypeFileData:
			end.Bytes += uint64(max(0, len(f.payload)-8))
		}
	}
	p.json(transport.TypeFilesEnd, end)
	return p
}

func (p *tape) json(t transport.Type, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	p.WriteFrame(t, b)
}

type frame struct {
	t       transport.Type
	payload []byte
}

func entryFrame(e entry) frame { return frame{transport.TypeFileEntry, e.append(nil)} }

func deleteFrame(path string) frame { return frame{transport.TypeFileDelete, []byte(path)} }

func dataFrame(offset uint64, run string) frame {
	b := binary.BigEndian.AppendUint64(nil, offset)
	return frame{transport.TypeFileData, append(b, run...)}
}

// receive plays the tape to the target.
func (p *tape) receive(ctx context.Context, target *Target) (Stats, error) {
	_, first, err := p.ReadFrame()
	if err != nil {
		return Stats{}, err
	}
	return target.Receive(ctx, p, bytes.Clone(first))
}

// mover is a source and a target with a tape between.
type mover struct {
	t        *testing.T
	src, dst string
	source   *Source
	target   *Target
	passes   int
}

func newMover(t *testing.T, src string) *mover {
	t.Helper()
	m := &mover{t: t, src: src, dst: t.TempDir() + "/staging"}
	var err error
	if m.source, err = NewSource(src, SourceOptions{}); err != nil {
		t.Fatal(err)
	}
	m.source.grain = testGrain
	t.Cleanup(func() { m.source.Close() })
	if m.target, err = NewTarget(m.dst); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.target.Discard(); err != nil {
			t.Error(err)
		}
	})
	return m
}

// pass moves what changed.
func (m *mover) pass(o PassOptions) Stats {
	m.t.Helper()
	m.passes++
	o.Pass = m.passes
	var wire tape
	sent, err := m.source.Pass(m.t.Context(), &wire, o)
	if err != nil {
		m.t.Fatal(err)
	}
	got, err := wire.receive(m.t.Context(), m.target)
	if err != nil {
		m.t.Fatal(err)
	}
	if got.Sent != sent.Sent || got.Deleted != sent.Deleted || got.Bytes != sent.Bytes {
		m.t.Fatalf("received %+v of %+v", got, sent)
	}
	return sent
}

// compare gives the staging directory its last touch and compares the trees.
func (m *mover) compare() {
	m.t.Helper()
	if err := m.target.Finish(); err != nil {
		m.t.Fatal(err)
	}
	compareSnapshots(m.t, snap(m.t, m.src), snap(m.t, m.dst))
}
