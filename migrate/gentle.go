package migrate

import (
	"context"
	"errors"
	"io"
	"strings"

	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/transport/files"
	"github.com/vzkit/vzkit/transport/pace"
)

// FileOptions say how files are moved, and how considerate a move is.
type FileOptions struct {
	Rate   int64 `json:"rate,omitempty"` // most bytes a second while the container runs; 0: no limit
	Polite bool  `json:"polite"`         // read files only when nobody else wants the disk or the CPU
	Lossy  bool  `json:"lossy"`          // leave out what the destination's file system cannot keep
}

// Accepted is the payload of transport.TypeAccept in answer to an offer.
type Accepted struct {
	Way  string   `json:"way"`            // byFiles or byBlocks
	Lost []string `json:"lost,omitempty"` // what the destination's file system cannot keep
}

// paced makes a link keep the rate that was asked for.
func (s *source) paced(link io.ReadWriteCloser) io.ReadWriteCloser {
	if s.Files.Rate == 0 {
		return link
	}
	if s.limiter == nil {
		s.limiter = pace.NewLimiter(s.Files.Rate)
	}
	return struct {
		io.Reader
		io.Writer
		io.Closer
	}{link, pace.NewWriter(context.Background(), link, s.limiter), link}
}

// hurry lifts the limit: from now on the container stands still, or the move is
// off.
func (s *source) hurry() {
	if s.limiter != nil {
		s.limiter.SetLimit(0)
	}
}

// politely makes do with what others leave, if that was asked for. It ends
// before CRIU is started, which would inherit it.
func (s *source) politely(do func() error) error {
	if !s.Files.Polite {
		return do()
	}
	restore, err := pace.Polite()
	if err != nil {
		s.Emit(Event{Kind: Note, Text: "files are read without regard for others: " + err.Error()})
		return do()
	}
	return errors.Join(do(), restore())
}

// tellLosses says what does not go along.
func (s *source) tellLosses(a Accepted) {
	if len(a.Lost) > 0 {
		s.Emit(Event{Kind: Note, Text: "not kept at the destination: " + strings.Join(a.Lost, ", ")})
	}
}

// findLosses refuses a file system that would lose what is ordinary, unless
// that was allowed. Inode flags and projects are rare: an entry that has some
// is refused when it comes.
func (d *destination) findLosses() error {
	lost, err := files.Losses(d.area.Files)
	if err != nil {
		return err
	}
	if d.offer.Lossy {
		d.accepted.Lost = lost
		d.tree.SetLossy(func(string, uint64) {})
		return nil
	}
	for _, what := range lost {
		if strings.HasPrefix(what, "extended attributes") || what == "POSIX ACLs" || what == "owners" || what == "device nodes" {
			return fault.New(fault.Copy, "file system of %q cannot keep: %s", d.area.Files, strings.Join(lost, ", ")).
				WithHint("Give the container another place at the destination (VE_PRIVATE), or move it with --lossy and without them.")
		}
	}
	return nil
}
