package memory

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/vzkit/vzkit/transport"
)

// mapStore is a Store, and the model of what it should hold.
type mapStore struct {
	mu    sync.Mutex
	pages map[place][]byte
	puts  []place // of runs, in order
}

func newStore() *mapStore { return &mapStore{pages: map[place][]byte{}} }

func (s *mapStore) Put(space, address uint64, count uint32, data []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := place{space, address / pageSize}
	s.puts = append(s.puts, p)
	if data == nil && uint64(count) > uint64(len(s.pages)) {
		for q := range s.pages {
			if q.space == space && q.page >= p.page && q.page < p.page+uint64(count) {
				delete(s.pages, q)
			}
		}
		return nil
	}
	for i := range uint64(count) {
		if data == nil {
			delete(s.pages, p.plus(i))
			continue
		}
		s.pages[p.plus(i)] = bytes.Clone(data[i*pageSize:][:pageSize])
	}
	return nil
}

func (s *mapStore) Get(space, address uint64, page []byte) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	data, ok := s.pages[place{space, address / pageSize}]
	copy(page, data)
	return ok, nil
}

// differs compares, with absent pages and zero ones equal.
func (s *mapStore) differs(t testing.TB, want *mapStore) {
	t.Helper()
	for _, side := range []*mapStore{s, want} {
		for p := range side.pages {
			got, want := orZero(s.pages[p]), orZero(want.pages[p])
			if !bytes.Equal(got, want) {
				t.Fatalf("page %#x of space %d differs from offset %d on", p.address(), p.space, difference(got, want, 0))
			}
		}
	}
}

func orZero(b []byte) []byte {
	if b == nil {
		return zeroPage[:]
	}
	return b
}

// route takes a sender's frames through real framing to a receiver.
type route struct {
	*transport.Conn
	wire     bytes.Buffer
	reading  *transport.Conn
	receiver *Receiver
}

func newRoute(s Store) *route {
	r := &route{receiver: NewReceiver(s)}
	r.Conn = transport.NewConn(nil, &r.wire)
	r.reading = transport.NewConn(&r.wire, nil)
	return r
}

// WriteEncoded delivers the frame at once.
func (*route) Busy() (uint64, time.Duration) { return 0, 0 }

func (r *route) WriteEncoded(t transport.Type, c transport.Codec, plain int, parts ...[]byte) error {
	if err := errors.Join(r.Conn.WriteEncoded(t, c, plain, parts...), r.Conn.Flush()); err != nil {
		return err
	}
	_, payload, err := r.reading.ReadFrame()
	if err != nil {
		return err
	}
	return r.receiver.Frame(payload)
}

// moved is a sender with its routes to one store.
type moved struct {
	*Sender
	routes []*route
	store  *mapStore
}

func move(t testing.TB, streams int, o Options) *moved {
	t.Helper()
	m := &moved{store: newStore()}
	var w []FrameWriter
	for range streams {
		r := newRoute(m.store)
		m.routes = append(m.routes, r)
		w = append(w, r)
	}
	var err error
	if m.Sender, err = NewSender(w, o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	return m
}

// received adds up the receivers.
func (m *moved) received() (n Counts) {
	for _, r := range m.routes {
		n = n.plus(r.receiver.Counts())
	}
	return n
}

func noise(seed uint64, pages int) []byte {
	var key [32]byte
	key[0], key[1], key[2] = byte(seed), byte(seed>>8), byte(seed>>16)
	b := make([]byte, pages*pageSize)
	rand.NewChaCha8(key).Read(b)
	return b
}

// text is like memory full of words and small numbers.
func text(r *rand.Rand, pages int) []byte {
	words := []string{"container", "migrate", "memory", "the", "of", "page", "key:", "value", "\n", "0x", "user", "session"}
	b := make([]byte, 0, pages*pageSize+16)
	for len(b) < pages*pageSize {
		b = append(b, words[r.IntN(len(words))]...)
		b = append(b, ' ', byte('0'+r.IntN(10)), byte('0'+r.IntN(10)), ' ')
	}
	return b[:pages*pageSize]
}
