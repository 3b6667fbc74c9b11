package migrate

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/lifecycle"
	"github.com/vzkit/vzkit/transport"
)

// held is what the process that holds a container tells others on its host:
// a file beside the socket at which it takes the source's decision.
type held struct {
	ID     string `json:"id"`     // of the migration
	Source string `json:"source"` // host id of the source
}

func heldPath(h *lifecycle.Host, ctid uint32, ext string) string {
	return filepath.Join(h.Run, "hold", strconv.FormatUint(uint64(ctid), 10)+ext)
}

// findHeld returns what is held of container ctid here, or nil.
func findHeld(h *lifecycle.Host, ctid uint32) *held {
	var x held
	text, err := os.ReadFile(heldPath(h, ctid, ".json"))
	if err != nil || json.Unmarshal(text, &x) != nil {
		return nil
	}
	return &x
}

// listenHeld makes the container known as held and listens for its source.
func listenHeld(h *lifecycle.Host, ctid uint32, x held) (net.Listener, error) {
	path := heldPath(h, ctid, ".json")
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fault.New(fault.Other, "make hold directory: %w", err)
	}
	socket := heldPath(h, ctid, ".sock")
	_ = os.Remove(socket) // of a holder that was killed: we have the container's lock
	l, err := net.Listen("unix", socket)
	if err != nil {
		return nil, fault.New(fault.Other, "listen for the source: %w", err)
	}
	text, err := json.Marshal(x)
	if err == nil {
		err = os.WriteFile(path, text, 0o600)
	}
	if err != nil {
		l.Close()
		return nil, fault.New(fault.Other, "note what is held: %w", err)
	}
	return l, nil
}

// answer is what came of asking the source on one connection.
type answer struct {
	conn    *transport.Conn
	typ     transport.Type
	packets [][]byte // that came for the container meanwhile
	err     error
}

// hold keeps the finished container, stopped, until the source has decided.
// The connection may be lost meanwhile, with or without notice: the decision
// may come over any other one, through the socket. Neither a signal nor the
// end of the SSH session ends it, since only the source knows what has become
// of its record.
func (d *destination) hold() error {
	socket, err := listenHeld(d.host, d.c.ID, held{ID: d.offer.ID, Source: d.source})
	if err != nil {
		return tell(d.conn, err)
	}
	over := make(chan struct{})
	defer func() {
		close(over)
		os.Remove(heldPath(d.host, d.c.ID, ".json"))
		socket.Close()
	}()
	answers := make(chan answer)
	go ask(d.conn, answers, over)
	go func() {
		for {
			next, err := socket.Accept()
			if err != nil {
				return
			}
			go ask(transport.NewConn(next, next), answers, over)
		}
	}()
	for a := range answers {
		if done, err := d.obey(a); done {
			return err
		}
	}
	return nil
}

// ask tells the source on conn that the container is held, and passes on what
// it says. A source that has gone may have left word before that.
func ask(conn *transport.Conn, answers chan<- answer, over <-chan struct{}) {
	_ = conn.WriteJSON(transport.TypeRestored, nil)
	a := answer{conn: conn}
	var payload []byte
	a.typ, payload, a.err = conn.ReadFrame()
	if a.err == nil && a.typ == transport.TypePackets {
		if a.packets, a.err = parsePackets(payload); a.err == nil {
			a.typ, _, a.err = conn.ReadFrame()
		}
	}
	select {
	case answers <- a:
	case <-over:
	}
}

// obey does what the source says. It is not done if that is no decision, or
// if it could not be carried out: the container is held on.
func (d *destination) obey(a answer) (done bool, err error) {
	switch {
	case a.err != nil:
		return false, nil
	case a.typ == transport.TypeAbort:
		err := d.undo.Run()
		return true, errors.Join(err, a.conn.WriteJSON(transport.TypeAborted, nil))
	case a.typ != transport.TypeCommit:
		_ = a.conn.SendError(fault.New(fault.Protocol, "got %s while holding", a.typ))
		return false, nil
	}
	if err := d.adopt(); err != nil {
		_ = a.conn.SendError(err)
		return false, nil
	}
	_ = d.c.Venet().Deliver(a.packets)               // what is lost is sent again
	_ = a.conn.WriteJSON(transport.TypeResumed, nil) // if it does not hear, it asks again
	settled, err := d.settle()
	if err != nil {
		_ = a.conn.SendError(err)
		return true, err
	}
	if a.conn.WriteJSON(transport.TypeSettled, settled) == nil {
		_ = a.conn.ReadJSON(transport.TypeFinish, nil) // or the end of the connection: nothing depends on it
	}
	return true, nil
}

// lockTime is how long a new migration waits for a holder that it has called
// off to clean up.
const lockTime = 10 * time.Second

// callOff ends a hold of container ctid that the same source has forgotten: a
// source that has a record delivers it and offers nothing, so one that offers
// the container anew has none, and what is held here is stale. It reports
// whether the holder has obeyed and is about to let go of the lock.
func callOff(h *lifecycle.Host, ctid uint32, source string) bool {
	x := findHeld(h, ctid)
	if x == nil || x.Source != source {
		return false
	}
	link, err := net.DialTimeout("unix", heldPath(h, ctid, ".sock"), lockTime)
	if err != nil {
		return false
	}
	defer link.Close()
	_ = link.SetDeadline(time.Now().Add(lockTime))
	conn := transport.NewConn(link, link)
	return conn.ReadJSON(transport.TypeRestored, nil) == nil && conn.WriteJSON(transport.TypeAbort, nil) == nil &&
		conn.ReadJSON(transport.TypeAborted, nil) == nil
}

// lock takes the container's lock, waiting for a holder that was called off.
func lock(h *lifecycle.Host, ctid uint32, source string) (*lifecycle.Lock, error) {
	l, err := h.Lock(ctid, "vzmigrate --receive")
	if err == nil || findHeld(h, ctid) == nil {
		return l, err
	}
	if !callOff(h, ctid, source) {
		return nil, fmt.Errorf("another migration of it is held here: %w", err)
	}
	for deadline := time.Now().Add(lockTime); err != nil && time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		l, err = h.Lock(ctid, "vzmigrate --receive")
	}
	return l, err
}
