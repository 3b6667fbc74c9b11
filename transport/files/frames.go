package files

import (
	"context"
	"encoding/json"
	"errors"
	"strconv"

	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/transport"
)

// FrameWriter is the part of transport.Conn that a Source needs. WriteFrame
// joins the parts and keeps none of them.
type FrameWriter interface {
	WriteFrame(t transport.Type, parts ...[]byte) error
	Flush() error
}

// FrameReader is the part of transport.Conn that a Target needs. The payload is
// valid until the next ReadFrame.
type FrameReader interface {
	ReadFrame() (transport.Type, []byte, error)
}

// ErrAbort is what Receive returns when the sender gave up with an abort frame
// in place of the rest of the pass.
var ErrAbort = errors.New("sender aborted the pass")

// Stats counts one pass.
type Stats struct {
	Entries uint64 // entries looked at; at the receiver those that arrived
	Sent    uint64 // entries sent
	Deleted uint64 // paths deleted
	Bytes   uint64 // file content sent, holes not counted
	Tracked bool   // only what was seen to change was looked at
}

func (s *Stats) add(o Stats) {
	s.Entries += o.Entries
	s.Sent += o.Sent
	s.Deleted += o.Deleted
	s.Bytes += o.Bytes
}

// passBegin is the payload of files-begin.
type passBegin struct {
	Pass   int    `json:"pass"`
	Frozen bool   `json:"frozen"`
	Seed   string `json:"seed"` // of all sums, 64 bits in hexadecimal
}

func seedText(seed uint64) string { return strconv.FormatUint(seed, 16) }

// passEnd is the payload of files-end.
type passEnd struct {
	Entries uint64 `json:"entries"`
	Bytes   uint64 `json:"bytes"`
	Deleted uint64 `json:"deleted"`
}

func (s Stats) end() passEnd { return passEnd{s.Sent, s.Bytes, s.Deleted} }

func decodeJSON(t transport.Type, b []byte, v any) error {
	if err := json.Unmarshal(b, v); err != nil {
		return fault.New(fault.Protocol, "parse frame %v: %v", t, err)
	}
	return nil
}

// interrupted returns an error once ctx is done.
func interrupted(ctx context.Context) error {
	if ctx.Err() == nil {
		return nil
	}
	return fault.Wrap(fault.Interrupted, context.Cause(ctx))
}
