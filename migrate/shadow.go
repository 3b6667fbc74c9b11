package migrate

import (
	"errors"

	"github.com/vzkit/vzkit/dump/track"
	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/restore"
	"github.com/vzkit/vzkit/restore/memory"
)

// shadow keeps at the source what was sent of tracked memory, as the
// destination has it, so that it can be compared with what the frozen
// processes have (--verify-tracking). It takes as much memory again as the
// container. Nil is no shadow.
type shadow struct {
	room   *restore.Store
	memory *memory.Store
}

func newShadow(dir string, limit uint64) (*shadow, error) {
	room, err := restore.NewStore(dir, limit)
	if err != nil {
		return nil, fault.Wrap(fault.NoSpace, err)
	}
	m, err := memory.New(dir)
	if err != nil {
		return nil, errors.Join(err, room.Close())
	}
	return &shadow{room, m}, nil
}

func (s *shadow) put(r track.Run) error {
	if s == nil {
		return nil
	}
	return s.memory.Put(r.Space, r.Address, r.Count, r.Data)
}

// verify compares all memory with what was sent.
func (s *shadow) verify(t track.Tracker) error {
	if s == nil {
		return nil
	}
	if err := track.Verify(t, s.memory.Page); err != nil {
		return fault.New(fault.Checkpoint, "verify tracking: %w", err)
	}
	return nil
}

func (s *shadow) close() error {
	if s == nil {
		return nil
	}
	return errors.Join(s.memory.Close(), s.room.Close())
}
