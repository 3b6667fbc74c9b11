package files

import (
	"strconv"

	"github.com/vzkit/vzkit/transport"
)

// FrameWriter is the part of transport.Conn that a Source needs. WriteFrame
// joins the parts and keeps none of them.
type FrameWriter interface {
	WriteFrame(t transport.Type, parts ...[]byte) error
	Flush() error
}

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
