package migrate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"

	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/lifecycle"
	"github.com/vzkit/vzkit/restore/memory"
	"github.com/vzkit/vzkit/transport"
	wire "github.com/vzkit/vzkit/transport/memory"
)

// Memory may go over more connections than the one that everything else is on
// (--streams). Each of the others ends at a receiver of its own, which passes
// it on to the one that takes the container in, through a socket.

// Join is the payload of transport.TypeJoin.
type Join struct {
	ID   string `json:"id"` // of the migration
	CTID uint32 `json:"ctid"`
}

func joinPath(h *lifecycle.Host, ctid uint32) string {
	return filepath.Join(h.Run, "join", fmt.Sprintf("%d.sock", ctid))
}

// openStreams makes the further connections, and returns all of them.
func (s *source) openStreams(ctx context.Context) ([]wire.FrameWriter, error) {
	writers := []wire.FrameWriter{s.peer.Conn}
	for range s.Memory.Streams - 1 {
		link, err := s.Dial(ctx)
		if err != nil {
			return nil, fault.Wrap(fault.Connect, err)
		}
		p, err := connect(s.paced(link), s.hostID, func(err error) { s.cancel(err) })
		if err != nil {
			return nil, err
		}
		s.streams = append(s.streams, p)
		if err := p.WriteJSON(transport.TypeJoin, Join{ID: s.id, CTID: s.c.ID}); err != nil {
			return nil, err
		}
		if err := p.expect(ctx, transport.TypeAccept, nil); err != nil {
			return nil, err
		}
		writers = append(writers, p.Conn)
	}
	return writers, nil
}

// endPages ends the further connections, and with them the sending of pages.
// Calling it twice is fine.
func (s *source) endPages() {
	for _, p := range s.streams {
		s.report.WireBytes += p.Counts().SentBytes
		p.close()
	}
	s.streams = nil
	if s.pages != nil {
		s.pages.Close()
	}
}

// join passes a further connection of a source on to the receiver that takes
// its container in.
func join(h *lifecycle.Host, rw io.ReadWriter, payload []byte) error {
	var j Join
	if err := transport.DecodeJSON(transport.TypeJoin, payload, &j); err != nil {
		return err
	}
	main, err := net.Dial("unix", joinPath(h, j.CTID))
	if err != nil {
		return fault.New(fault.Protocol, "join migration of container %d: %w", j.CTID, err)
	}
	if _, err := fmt.Fprintln(main, j.ID); err != nil {
		return err
	}
	relay(main, rw)
	return nil
}

// streams are the connections that memory comes on.
type streams struct {
	id       string // of the migration
	store    *memory.Store
	complete func(mark uint64) error // called when a mark has come on all of them
	listener net.Listener

	mu        sync.Mutex
	changed   *sync.Cond
	receivers []*wire.Receiver
	mark      uint64 // the last one that is complete
	failed    error
}

// newStreams makes the first stream; count of them will come.
func newStreams(store *memory.Store, id string, complete func(uint64) error) *streams {
	s := &streams{id: id, store: store, complete: complete, receivers: []*wire.Receiver{wire.NewReceiver(store)}}
	s.changed = sync.NewCond(&s.mu)
	return s
}

// listen waits for further connections at path.
func (s *streams) listen(path string) (err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fault.New(fault.Other, "make directory of streams: %w", err)
	}
	_ = os.Remove(path) // of a receiver that was killed: we have the container's lock
	if s.listener, err = net.Listen("unix", path); err != nil {
		return fault.New(fault.Other, "listen for streams: %w", err)
	}
	go func() {
		for {
			link, err := s.listener.Accept()
			if err != nil {
				return
			}
			go s.serve(link)
		}
	}()
	return nil
}

func (s *streams) close() error {
	if s.listener == nil {
		return nil
	}
	return s.listener.Close()
}

// serve takes one further connection to its end.
func (s *streams) serve(link net.Conn) {
	defer link.Close()
	id := make([]byte, len(s.id)+1)
	if _, err := io.ReadFull(link, id); err != nil || string(id) != s.id+"\n" {
		return // not of this migration
	}
	r := s.add()
	if r == nil {
		return
	}
	conn := transport.NewConn(link, link)
	conn.Tell()
	err := conn.WriteJSON(transport.TypeAccept, nil)
	for err == nil {
		var typ transport.Type
		var payload []byte
		if typ, payload, err = conn.ReadFrame(); err == nil && typ != transport.TypeMemory {
			err = fault.New(fault.Protocol, "unexpected %s in a stream", typ)
		}
		if err == nil {
			err = s.take(r, payload)
		}
	}
	if !errors.Is(err, io.EOF) {
		_ = conn.SendError(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failed = err
	s.changed.Broadcast()
}

// add adds a stream, nil if there are enough.
func (s *streams) add() *wire.Receiver {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.receivers) >= wire.MaxStreams {
		return nil
	}
	r := wire.NewReceiver(s.store)
	s.receivers = append(s.receivers, r)
	return r
}

// take takes a frame of one stream.
func (s *streams) take(r *wire.Receiver, payload []byte) error {
	if err := r.Frame(payload); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	least := r.Mark()
	for _, other := range s.receivers {
		least = min(least, other.Mark())
	}
	if least <= s.mark {
		return nil
	}
	s.mark = least
	s.changed.Broadcast()
	return s.complete(least)
}

// await waits until a mark has come on all streams.
func (s *streams) await(mark uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.mark < mark {
		if s.failed != nil {
			return s.failed
		}
		if len(s.receivers) == 1 { // it is ours to read, so nothing is under way
			return fault.New(fault.Protocol, "memory ends before mark %d", mark)
		}
		s.changed.Wait()
	}
	return nil
}
