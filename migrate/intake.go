package migrate

import (
	"errors"
	"os"

	"github.com/vzkit/vzkit/dump/track"
	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/restore"
	"github.com/vzkit/vzkit/restore/memory"
	"github.com/vzkit/vzkit/transport"
)

// intake is what has come of a running container's state: memory in a store,
// CRIU's images beside it, and what belongs to what.
type intake struct {
	conn    *transport.Conn
	images  *restore.Store
	memory  *memory.Store
	streams *streams
	spaces  map[int]uint64     // of processes, by pid in the container
	objects map[uint64]SpaceOf // by inode at the source
	got     MemoryEnd
	groups  bool // images describe cgroups
	ended   bool // it is complete
}

// newIntake makes room for at most limit bytes below dir, for the migration
// with that id.
func newIntake(conn *transport.Conn, dir, id string, limit uint64) (*intake, error) {
	images, err := restore.NewStore(dir, limit)
	if err != nil {
		return nil, fault.Wrap(fault.NoSpace, err)
	}
	m, err := memory.New(images.Dir())
	if err != nil {
		return nil, errors.Join(err, images.Close())
	}
	n := &intake{conn: conn, images: images, memory: m, spaces: map[int]uint64{}, objects: map[uint64]SpaceOf{}}
	n.streams = newStreams(m, id, n.roundDone)
	return n, nil
}

// roundDone tells the source that a round is complete.
func (n *intake) roundDone(mark uint64) error {
	n.memory.NextRound()
	return n.conn.WriteJSON(transport.TypeRoundDone, RoundDone{Round: mark})
}

// close gives the room back.
func (n *intake) close() error {
	return errors.Join(n.streams.close(), n.memory.Close(), n.images.Close())
}

// take takes a frame.
func (n *intake) take(typ transport.Type, payload []byte) error {
	if n.ended {
		return fault.New(fault.Protocol, "%s after the end of memory", typ)
	}
	switch typ {
	case transport.TypeMemory:
		return n.streams.take(n.streams.receivers[0], payload)
	case transport.TypeMemoryBegin:
		return nil
	case transport.TypePages:
		return n.takePages(payload)
	case transport.TypeImage:
		return n.takeImage(payload)
	case transport.TypeLayout:
		return n.takeLayout(payload)
	case transport.TypeMemoryEnd:
		return n.end(payload)
	}
	return fault.New(fault.Protocol, "unexpected %s", typ)
}

func (n *intake) takePages(payload []byte) error {
	p, err := transport.ParsePages(payload)
	if err != nil {
		return err
	}
	if p.Flags&transport.PagePresent != 0 {
		n.got.Pages += uint64(p.Count)
	}
	return n.images.Pages(p.Space == transport.SpaceShmem, p.ID, p.Address, p.Count, p.Flags, p.Data)
}

func (n *intake) takeImage(payload []byte) error {
	m, err := transport.ParseImage(payload)
	if err != nil {
		return err
	}
	if m.Last {
		n.got.Images++
	}
	return n.images.Image(m.Name, m.Data, m.Last)
}

// maxNames bounds the processes and objects of a layout.
const maxNames = 1 << 16

func (n *intake) takeLayout(payload []byte) error {
	var part Layout
	if err := transport.DecodeJSON(transport.TypeLayout, payload, &part); err != nil {
		return err
	}
	if len(n.spaces)+len(part.Processes) > maxNames || len(n.objects)+len(part.Objects) > maxNames {
		return fault.New(fault.Protocol, "layout names more than %d processes or objects", maxNames)
	}
	for _, p := range part.Processes {
		if p.ID == 0 || p.ID > 1<<22 || p.Space&track.Shared != 0 { // PID_MAX_LIMIT
			return fault.New(fault.Protocol, "layout has process %d with space %#x", p.ID, p.Space)
		}
		n.spaces[int(p.ID)] = p.Space
	}
	for _, o := range part.Objects {
		if o.Space&track.Shared == 0 {
			return fault.New(fault.Protocol, "layout has object %d with space %#x", o.ID, o.Space)
		}
		n.objects[o.ID] = o
	}
	return nil
}

// end checks that everything has come.
func (n *intake) end(payload []byte) error {
	var want MemoryEnd
	if err := transport.DecodeJSON(transport.TypeMemoryEnd, payload, &want); err != nil {
		return err
	}
	if want.Images != n.got.Images || want.Pages != n.got.Pages {
		return fault.New(fault.Protocol, "got %d images and %d pages of %d and %d", n.got.Images, n.got.Pages, want.Images, want.Pages)
	}
	if err := n.streams.await(want.Mark); err != nil {
		return err
	}
	n.ended, n.groups = true, want.Groups
	return n.images.Finish()
}

// sharedObjects are the shared memory objects that came, by inode number at
// the source.
func (n *intake) sharedObjects() (map[uint64]*os.File, error) {
	files := map[uint64]*os.File{}
	for inode, o := range n.objects {
		f, err := n.memory.Object(o.Space)
		if err != nil {
			return nil, err
		}
		files[inode] = f
	}
	return files, nil
}
