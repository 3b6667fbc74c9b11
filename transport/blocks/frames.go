package blocks

import (
	"encoding/binary"
	"encoding/json"
	"errors"

	"golang.org/x/sys/unix"

	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/transport"
)

// Block is the unit of offsets and lengths on the wire, in bytes.
const Block = 4096

// maxRun is the most bytes that this sender puts in one frame.
const maxRun = 256 << 10

// FrameWriter is the part of transport.Conn that a Source needs.
type FrameWriter interface {
	transport.Busier
	WriteFrame(t transport.Type, parts ...[]byte) error
	WriteEncoded(t transport.Type, codec transport.Codec, plain int, parts ...[]byte) error
	Flush() error
}

// Stats counts one pass.
type Stats struct {
	Looked  uint64 // blocks looked at
	Data    uint64 // bytes sent
	Holes   uint64 // bytes that were sent as holes
	Tracked bool   // only what was seen to change was looked at
}

type passBegin struct {
	Pass   int   `json:"pass"`
	Frozen bool  `json:"frozen"`
	Hurry  bool  `json:"hurry,omitempty"`
	Size   int64 `json:"size"`
}

type passEnd struct {
	Data  uint64 `json:"data"`
	Holes uint64 `json:"holes"`
}

func (s Stats) end() passEnd { return passEnd{s.Data, s.Holes} }

// writeJSON writes a control frame.
func writeJSON(w FrameWriter, t transport.Type, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return fault.Wrap(fault.Copy, w.WriteFrame(t, b))
}

// extent is a part of the file, in bytes.
type extent struct{ offset, length int64 }

func (e extent) append(b []byte) []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(b, uint64(e.offset)), uint64(e.length))
}

// check refuses what is not within size bytes.
func (e extent) check(size int64) error {
	if e.offset < 0 || e.length <= 0 || e.offset%Block != 0 || e.length%Block != 0 || e.offset > size || e.length > size-e.offset {
		return hostile("%d bytes at %d of an image of %d", e.length, e.offset, size)
	}
	return nil
}

// parseData splits the payload of a blocks-data frame.
func parseData(b []byte, size int64) (extent, []byte, error) {
	if len(b) < 8 {
		return extent{}, nil, hostile("frame %v of %d bytes", transport.TypeBlocksData, len(b))
	}
	e := extent{int64(binary.BigEndian.Uint64(b)), int64(len(b) - 8)}
	return e, b[8:], e.check(size)
}

// parseHole reads the payload of a blocks-hole frame.
func parseHole(b []byte, size int64) (extent, error) {
	if len(b) != 16 {
		return extent{}, hostile("frame %v of %d bytes", transport.TypeBlocksHole, len(b))
	}
	e := extent{int64(binary.BigEndian.Uint64(b)), int64(binary.BigEndian.Uint64(b[8:]))}
	return e, e.check(size)
}

func hostile(format string, args ...any) error {
	return fault.New(fault.Protocol, format, args...)
}

// imageError says what could not be done to the image.
func imageError(op, path string, err error) error {
	e := fault.New(fault.Copy, "%s image %q: %w", op, path, err)
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		e.Kind = fault.NoSpace
		return e.WithHint("Free space on the file system, or raise the quota, and try again.")
	}
	return e
}
