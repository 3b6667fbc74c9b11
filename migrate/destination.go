package migrate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/vzkit/vzkit/freeze"
	"github.com/vzkit/vzkit/internal/criu"
	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/internal/undo"
	"github.com/vzkit/vzkit/lifecycle"
	"github.com/vzkit/vzkit/lifecycle/cgroup"
	"github.com/vzkit/vzkit/restore"
	"github.com/vzkit/vzkit/restore/pager"
	"github.com/vzkit/vzkit/transport"
	"github.com/vzkit/vzkit/transport/blocks"
	"github.com/vzkit/vzkit/transport/files"
)

// destination is one migration, seen from the host that receives.
type destination struct {
	host      *lifecycle.Host
	conn      *transport.Conn
	offer     Offer
	accepted  Accepted
	source    string // host id of the source
	c         *lifecycle.Container
	criu      string
	worker    *criu.Worker // waits for the images
	staging   string
	area      *lifecycle.Area // in staging
	converts  bool            // to another layout than it has at the source
	tree      *files.Target
	way       string
	full      bool           // there is no space left: nothing is kept that would take it
	image     *blocks.Target // in place of the tree
	basis     *basis
	begun     bool     // files have come
	passed    bool     // all of them, once
	placed    bool     // the area is the container's
	replaced  bool     // staging is what was in its place
	doomed    []string // directories that nobody needs any more
	shell     *lifecycle.Shell
	freezer   freeze.Freezer
	state     *intake      // of a running container
	guard     *pager.Guard // stands by for it
	pager     *pager.Pager
	thawed    time.Time
	watch     stopwatch
	brisk     func()        // ends what keeps joining cgroups quick
	announced chan struct{} // closed when the neighbours know
	undo      undo.Stack
}

// Receive serves one source on rw, the standard input and output of a
// `vzmigrate --receive`. It returns when the container runs here and the source
// has let go of it, or when nothing of it is left here.
func Receive(ctx context.Context, h *lifecycle.Host, rw io.ReadWriter) error {
	conn := transport.NewConn(rw, rw)
	id, err := h.HostID()
	if err != nil {
		return err
	}
	source, _, err := conn.Handshake(hello(transport.RoleReceiver, id))
	if err != nil {
		return tell(conn, err)
	}
	conn.Tell()
	typ, payload, err := conn.ReadFrame()
	switch {
	case errors.Is(err, io.EOF): // the source found a reason not to ask
		return nil
	case err != nil:
		return tell(conn, err)
	case typ == transport.TypeAttach:
		return tell(conn, attach(h, conn, rw, payload))
	case typ == transport.TypeJoin:
		return tell(conn, join(h, rw, payload))
	case typ != transport.TypeOffer:
		return tell(conn, fault.New(fault.Protocol, "first frame is %s, want offer", typ))
	}
	d := &destination{host: h, conn: conn, source: source.HostID}
	if err := transport.DecodeJSON(typ, payload, &d.offer); err != nil {
		return tell(conn, err)
	}
	return d.receive(ctx)
}

// tell sends err to the source, if it is one of ours, and returns it.
func tell(conn *transport.Conn, err error) error {
	var theirs *transport.PeerError
	if err != nil && !errors.As(err, &theirs) {
		_ = conn.SendError(err)
	}
	return err
}

// receive takes the container in up to the point where it is held. Until then
// any error leaves nothing of it here.
func (d *destination) receive(ctx context.Context) error {
	lock, err := d.accept(ctx)
	if err != nil {
		return tell(d.conn, err)
	}
	defer lock.Unlock()
	defer d.undo.Run()
	defer d.calm()
	aborted, err := d.takeIn(ctx)
	if err == nil && !aborted {
		err = d.build()
	}
	if err != nil || aborted {
		d.full = fault.KindOf(err) == fault.NoSpace
		if uerr := d.undo.Run(); uerr != nil {
			err = errors.Join(err, uerr)
		}
		if err != nil {
			return tell(d.conn, err)
		}
		return d.conn.WriteJSON(transport.TypeAborted, nil)
	}
	err = d.hold()
	d.sweep(lock)
	return err
}

// accept checks the offer, makes the place for the container and says so.
func (d *destination) accept(ctx context.Context) (*lifecycle.Lock, error) {
	if err := checkID(d.offer.ID); err != nil {
		return nil, err
	}
	lock, err := lock(d.host, d.offer.CTID, d.source)
	if err != nil {
		return nil, err
	}
	for _, step := range []func() error{
		d.check, func() error { return d.prepare(ctx) }, ctx.Err, func() error { return d.conn.WriteJSON(transport.TypeAccept, d.accepted) },
	} {
		if err := step(); err != nil {
			lock.Unlock()
			return nil, errors.Join(err, d.undo.Run())
		}
	}
	return lock, nil
}

// prepare makes the staging directory beside the private area to be, and for a
// running container the shell that its processes will be in.
func (d *destination) prepare(ctx context.Context) error {
	parent := filepath.Dir(d.c.Private())
	if err := os.MkdirAll(parent, 0o711); err != nil {
		return fault.New(fault.Copy, "make private areas' directory: %w", err)
	}
	if err := d.clearStale(); err != nil {
		return err
	}
	if err := d.makeArea(ctx); err != nil || !d.offer.Live {
		return err
	}
	mounted := d.staging
	if d.way == byBlocks {
		mounted = "" // yet
	}
	var err error
	if d.shell, err = d.c.Prepare(mounted); err != nil {
		return err
	}
	d.undo.Push("release network", d.release)
	d.undo.Push("dismantle", d.shell.Close)
	if d.freezer, err = d.c.Freezer(); err != nil {
		return err
	}
	d.undo.Push("kill what was restored", d.c.Kill)
	if d.state, err = newIntake(d.conn, d.imageDir(), d.offer.ID, d.storeLimit()); err != nil {
		return err
	}
	d.undo.Push("remove state", d.state.close)
	if err := d.startCriu(); err != nil {
		return err
	}
	if d.guard, err = pager.StartGuard(d.freezer); err != nil {
		return fault.Wrap(fault.Restore, err)
	}
	d.undo.Push("end guard", d.guard.Close)
	if d.offer.Streams > 1 {
		return d.state.streams.listen(joinPath(d.host, d.c.ID))
	}
	return nil
}

// startCriu has CRIU ready when the images come.
func (d *destination) startCriu() (err error) {
	cache := filepath.Join(d.host.Run, "criu")
	if err := criu.Warm(d.criu, cache); err != nil {
		return fault.New(fault.NoEngine, "prepare criu: %w", err)
	}
	if d.worker, err = criu.Start(d.criu, criu.StartOptions{Cache: cache}); err != nil {
		return fault.New(fault.NoEngine, "prepare criu: %w", err)
	}
	d.undo.Push("end criu", func() error { d.worker.Close(); return nil })
	return nil
}

func (d *destination) imageDir() string {
	return filepath.Join(d.host.Run, "restore", fmt.Sprintf("%d-%s", d.c.ID, d.offer.ID))
}

// storeLimit is how much tmpfs the container's state may take: what it said,
// half as much again for what it may still grow, and room for CRIU's images.
// What is put in place goes from there, so it is not needed twice.
func (d *destination) storeLimit() uint64 { return d.offer.Memory + d.offer.Memory/2 + 64<<20 }

// takeIn reads files, pages and images until all of the state is here, or the
// source calls it off.
func (d *destination) takeIn(ctx context.Context) (aborted bool, err error) {
	d.lend(ctx)
	for {
		typ, payload, err := d.conn.ReadFrame()
		if errors.Is(err, io.EOF) {
			err = fault.New(fault.Connect, "source closed the connection")
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return false, err
		}
		switch typ {
		case transport.TypeAbort:
			return true, nil
		case transport.TypeFilesBegin, transport.TypeBlocksBegin:
			last, err := d.takeFiles(ctx, typ, payload)
			if errors.Is(err, transport.ErrAbort) {
				return true, nil
			}
			if err != nil || last {
				return false, err
			}
		default:
			if err := d.takeState(typ, payload); err != nil {
				return false, err
			}
		}
	}
}

// takeFiles receives one pass over the files; after the last one, all of the
// state must be here.
func (d *destination) takeFiles(ctx context.Context, typ transport.Type, payload []byte) (last bool, err error) {
	if (typ == transport.TypeBlocksBegin) != (d.way == byBlocks) {
		return false, fault.New(fault.Protocol, "%s, but files come by %s", typ, d.way)
	}
	var begin struct {
		Frozen bool `json:"frozen"`
	}
	if err := transport.DecodeJSON(typ, payload, &begin); err != nil {
		return false, err
	}
	if begin.Frozen { // the restore is near
		d.watch.start("destination")
		d.brisk = cgroup.Brisk()
	}
	if err := d.receivePass(ctx, append([]byte(nil), payload...)); err != nil {
		return false, err
	}
	if !begin.Frozen || !d.offer.Live {
		return begin.Frozen, d.conn.WriteJSON(transport.TypeFilesDone, nil)
	}
	if !d.state.ended {
		return false, fault.New(fault.Protocol, "last files before the end of memory")
	}
	return true, nil
}

// takeState takes a frame of a running container's state.
func (d *destination) takeState(typ transport.Type, payload []byte) error {
	if d.state == nil {
		return fault.New(fault.Protocol, "unexpected %s", typ)
	}
	return d.state.take(typ, payload)
}

// build puts the config beside its final place and restores the processes,
// frozen and without network to the outside.
func (d *destination) build() error {
	if err := d.finishFiles(); err != nil {
		return err
	}
	if err := d.stageConfig(); err != nil {
		return err
	}
	if !d.offer.Live {
		return d.syncFiles()
	}
	return d.restore()
}

// restore builds the processes, frozen, with their memory at hand.
func (d *destination) restore() error {
	d.watch.step("take in last files")
	if err := d.mountImage(); err != nil {
		return err
	}
	objects, err := d.state.sharedObjects()
	if err != nil {
		return fault.Wrap(fault.Restore, err)
	}
	init, err := restore.Restore(restore.Config{
		Criu: d.criu, Worker: d.worker, Dir: d.state.images.Dir(), Root: d.c.Root(), Connect: d.connect, Objects: objects, Groups: d.state.groups, Freeze: d.mark,
	})
	if err != nil {
		d.keepLog()
		return err
	}
	d.watch.step("criu lets go")
	if err := d.shell.Started(init); err != nil {
		return err
	}
	err = d.attachMemory()
	d.watch.step("attach pager")
	return err
}

// mark makes the restored tasks frozen ones.
func (d *destination) mark() error {
	d.watch.step("criu restores processes")
	return d.freezer.Mark()
}

// calm ends the haste of a restore.
func (d *destination) calm() {
	if d.brisk != nil {
		d.brisk()
		d.brisk = nil
	}
}

// connect gives the container its network and holds it: what restored sockets
// send, and what the kernel sends for them if they are killed again, must not
// reach peers while the source owns the container.
func (d *destination) connect(pid int) error {
	d.watch.step("criu makes namespaces")
	defer d.watch.step("connect network")
	if !d.state.groups {
		if err := d.shell.Enclose(pid); err != nil {
			return err
		}
	}
	d.calm()
	d.watch.step("join cgroups")
	if err := d.shell.Connect(pid); err != nil {
		return err
	}
	_, err := freeze.HoldLink(d.c.Venet().HostEnd())
	return fault.Wrap(fault.Network, err)
}

// release ends the hold that connect has made, if it has.
func (d *destination) release() error {
	return fault.Wrap(fault.Network, freeze.ReleaseLink(d.c.Venet().HostEnd()))
}

// keepLog saves CRIU's log, whose summary the error has, for a person to read.
func (d *destination) keepLog() {
	path := filepath.Join(d.host.Lib, "log", fmt.Sprintf("restore-%d.log", d.c.ID))
	if os.MkdirAll(filepath.Dir(path), 0o755) == nil {
		_ = restore.KeepLog(d.state.images.Dir(), path)
	}
}

func (d *destination) findCriu() (err error) {
	if d.criu, err = criu.Find(); err != nil {
		return err
	}
	return checkCriu(d.criu, d.offer.Criu)
}
