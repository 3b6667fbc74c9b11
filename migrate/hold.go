package migrate

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/lifecycle"
	"github.com/vzkit/vzkit/transport"
)

// stageConfig writes the container's config beside its final place, where it
// is not yet a container's.
func (d *destination) stageConfig() error {
	path := d.stagedConfig()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fault.New(fault.Copy, "make config directory: %w", err)
	}
	if err := d.c.Conf.Save(path); err != nil {
		return err
	}
	d.undo.Push("remove "+path, func() error { return os.Remove(path) })
	return nil
}

func (d *destination) stagedConfig() string { return d.host.ConfPath(d.c.ID) + "." + d.offer.ID }

// hold keeps the finished container, stopped, until the source has decided.
// The connection may be lost meanwhile: then the decision comes over another
// one, through the socket at holdPath. Neither a signal nor the end of the
// SSH session ends it, since only the source knows what has become of its
// record.
func (d *destination) hold() error {
	socket, err := listenHeld(d.host, d.offer.ID)
	if err != nil {
		return tell(d.conn, err)
	}
	defer socket.Close()
	for conn := d.conn; ; {
		done, err := d.decide(conn)
		if done {
			return err
		}
		next, err := socket.Accept()
		if err != nil {
			return fmt.Errorf("wait for the source: %w", err)
		}
		conn = transport.NewConn(next, next)
	}
}

// decide tells the source that the container is held and does what it says.
// It is not done if the connection ends without a decision.
func (d *destination) decide(conn *transport.Conn) (done bool, err error) {
	if err := conn.WriteJSON(transport.TypeRestored, nil); err != nil {
		return false, err
	}
	typ, _, err := conn.ReadFrame()
	switch {
	case err != nil:
		return false, err
	case typ == transport.TypeAbort:
		err := d.undo.Run()
		return true, errors.Join(err, conn.WriteJSON(transport.TypeAborted, nil))
	case typ != transport.TypeCommit:
		_ = conn.SendError(fault.New(fault.Protocol, "got %s while holding", typ))
		return false, nil
	}
	if err := d.adopt(); err != nil {
		_ = conn.SendError(err)
		return true, err
	}
	if conn.WriteJSON(transport.TypeResumed, nil) == nil {
		_ = conn.ReadJSON(transport.TypeFinish, nil) // or the end of the connection: nothing depends on it
	}
	return true, nil
}

// adopt makes the container this host's and lets it run. All that could fail
// has been done before; here are renames, routes and the thaw.
func (d *destination) adopt() error {
	if err := os.Rename(d.staging, d.c.Private()); err != nil {
		return fault.New(fault.Copy, "put private area in place: %w", err)
	}
	if err := os.Rename(d.stagedConfig(), d.host.ConfPath(d.c.ID)); err != nil {
		return fault.New(fault.Config, "put config in place: %w", err)
	}
	if d.offer.Live {
		if err := d.run(); err != nil {
			return err
		}
		d.shell.Keep()
	}
	d.undo.Keep()
	errs := []error{d.markAdopted(), lifecycle.SyncDir(filepath.Dir(d.c.Private())), d.tree.Sync(), d.tree.Close()}
	if d.store != nil {
		errs = append(errs, d.store.Close())
	}
	return errors.Join(errs...)
}

// run opens the container's network and thaws it.
func (d *destination) run() error {
	if err := d.shell.Open(); err != nil {
		return err
	}
	return fault.Wrap(fault.Restore, d.freezer.Thaw())
}

// adoptedPath names the last migration by which a container came here, so that
// a source that has not heard can be told.
func adoptedPath(h *lifecycle.Host, ctid uint32) string {
	return filepath.Join(h.Lib, "handover", fmt.Sprintf("%d.adopted", ctid))
}

func (d *destination) markAdopted() error {
	path := adoptedPath(d.host, d.c.ID)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(d.offer.ID+"\n"), 0o644)
}

// holdPath is the socket of the process that holds a container.
func holdPath(h *lifecycle.Host, id string) string {
	return filepath.Join(h.Run, "hold", id+".sock")
}

func listenHeld(h *lifecycle.Host, id string) (net.Listener, error) {
	path := holdPath(h, id)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fault.New(fault.Other, "make socket directory: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fault.New(fault.Other, "listen for the source: %w", err)
	}
	return l, nil
}

// attach serves a source that comes back for the migration in payload: it is
// connected to the process that holds the container, or hears that the
// container runs here.
func attach(h *lifecycle.Host, conn *transport.Conn, rw io.ReadWriter, payload []byte) error {
	var a Attach
	if err := transport.DecodeJSON(transport.TypeAttach, payload, &a); err != nil {
		return err
	}
	if err := checkID(a.ID); err != nil {
		return err
	}
	held, err := net.Dial("unix", holdPath(h, a.ID))
	if err != nil {
		return answerAttach(h, conn, a)
	}
	defer held.Close()
	// The source says nothing before it has heard from the holder, so no byte
	// of its is waiting in conn.
	go func() {
		_, _ = io.Copy(held, rw)
		held.Close()
	}()
	_, _ = io.Copy(rw, held)
	return nil
}

func answerAttach(h *lifecycle.Host, conn *transport.Conn, a Attach) error {
	text, err := os.ReadFile(adoptedPath(h, a.CTID))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read adoption: %w", err)
	}
	if strings.TrimSpace(string(text)) != a.ID {
		return fault.New(fault.NoContainer, "container %d is not held here", a.CTID)
	}
	if err := conn.WriteJSON(transport.TypeResumed, nil); err != nil {
		return err
	}
	_ = conn.ReadJSON(transport.TypeFinish, nil)
	return nil
}
