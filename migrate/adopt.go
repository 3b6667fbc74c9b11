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
	"time"

	"golang.org/x/sys/unix"

	"github.com/vzkit/vzkit/freeze"
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

// adopt makes the container this host's and lets it run. All that is likely to
// fail has been done before; here are renames, routes and the thaw. After an
// error it may be called again.
func (d *destination) adopt() error {
	d.watch.step("wait for the decision")
	if err := d.place(); err != nil {
		return err
	}
	if err := moveOnce(d.stagedConfig(), d.host.ConfPath(d.c.ID)); err != nil {
		return fault.New(fault.Config, "put config in place: %w", err)
	}
	if err := d.markAdopted(); err != nil {
		return fault.New(fault.Other, "note adoption: %w", err)
	}
	if d.offer.Live {
		if err := d.run(); err != nil {
			return err
		}
		d.shell.Keep()
	}
	d.undo.Keep()
	return nil
}

// moveOnce renames from to to, unless an earlier call has.
func moveOnce(from, to string) error {
	err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.ENOENT) {
		if _, serr := os.Lstat(to); serr == nil {
			return nil
		}
	}
	return err
}

// run opens the container's network and thaws it. What takes its time and can
// wait is left to settle: the end of the hold, through which packets pass.
func (d *destination) run() error {
	if err := d.shell.Route(); err != nil {
		return err
	}
	if err := freeze.PassLink(d.c.Venet().HostEnd()); err != nil {
		return fault.Wrap(fault.Network, err)
	}
	d.announced = make(chan struct{})
	go func() { defer close(d.announced); d.shell.Announce() }()
	d.thawed = time.Now()
	err := d.freezer.Thaw()
	d.watch.step("adopt, route, thaw")
	return fault.Wrap(fault.Restore, err)
}

// settle puts all memory in its place and what has been adopted onto the disk,
// and lets go of what that was made from.
func (d *destination) settle() (s Settled, err error) {
	var errs []error
	if d.offer.Live {
		if err := d.fill(); err != nil {
			// Nothing that it still lacks may go: the guard freezes the container
			// when this process ends.
			return s, fault.Wrap(fault.Restore, err)
		}
		s.Fill, s.Steps = millis(time.Since(d.thawed)), d.watch.steps
		<-d.announced
		errs = append(errs, d.release())
	}
	errs = append(errs, d.sealFiles(), d.area.Close())
	errs = append(errs, d.basis.close(), d.retire(), lifecycle.SyncDir(d.c.Private()), lifecycle.SyncDir(filepath.Dir(d.c.Private())))
	if d.state != nil {
		d.worker.Close() // if it was not the one to restore
		errs = append(errs, d.guard.Close())
		errs = append(errs, d.state.close())
	}
	return s, errors.Join(errs...)
}

// adoptedPath is a file with the id of the last migration by which a container
// came here, and " live" if it came running, so that a source that has not
// heard can be told.
func adoptedPath(h *lifecycle.Host, ctid uint32) string {
	return filepath.Join(h.Lib, "handover", fmt.Sprintf("%d.adopted", ctid))
}

func (d *destination) markAdopted() error {
	path := adoptedPath(d.host, d.c.ID)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	text := d.offer.ID
	if d.offer.Live {
		text += " live"
	}
	return os.WriteFile(path, []byte(text+"\n"), 0o644)
}

// attach serves a source that comes back for the migration in payload: it is
// connected to the process that holds the container, or hears that the
// container is here.
func attach(h *lifecycle.Host, conn *transport.Conn, rw io.ReadWriter, payload []byte) error {
	var a Attach
	if err := transport.DecodeJSON(transport.TypeAttach, payload, &a); err != nil {
		return err
	}
	if err := checkID(a.ID); err != nil {
		return err
	}
	if x := findHeld(h, a.CTID); x != nil && x.ID == a.ID {
		if held, err := net.Dial("unix", heldPath(h, a.CTID, ".sock")); err == nil {
			if relay(held, rw) {
				return nil
			}
		}
	}
	return answerAttach(h, conn, a)
}

// relay connects a returning source to the holder, and tells whether that had
// anything to say: it may just have ended. The source says nothing before it
// has heard from the holder, so none of its bytes has been read.
func relay(held net.Conn, rw io.ReadWriter) bool {
	defer held.Close()
	go func() {
		_, _ = io.Copy(held, rw)
		held.Close()
	}()
	n, _ := io.Copy(rw, held)
	return n > 0
}

// answerAttach tells a source that the container it has handed over is here,
// and on the disk.
func answerAttach(h *lifecycle.Host, conn *transport.Conn, a Attach) error {
	text, err := os.ReadFile(adoptedPath(h, a.CTID))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read adoption: %w", err)
	}
	id, live, _ := strings.Cut(strings.TrimSpace(string(text)), " ")
	if id != a.ID {
		return fault.New(fault.NoContainer, "container %d is not held here", a.CTID)
	}
	if c, err := h.Open(a.CTID); err != nil || (live != "" && c.Init() == 0) {
		return fault.New(fault.Restore, "container %d came here and does not run any more", a.CTID).
			WithHint("This host may have gone down. Start the container here, then call vzmigrate again to end the handover.")
	}
	if err := conn.WriteJSON(transport.TypeResumed, nil); err != nil {
		return err
	}
	unix.Sync() // whoever adopted it may have died before
	if err := conn.WriteJSON(transport.TypeSettled, Settled{}); err != nil {
		return err
	}
	_ = conn.ReadJSON(transport.TypeFinish, nil)
	return nil
}
