package dump

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/checkpoint-restore/go-criu/v7/rpc"
	"google.golang.org/protobuf/proto"

	"github.com/vzkit/vzkit/dump/track"
	"github.com/vzkit/vzkit/internal/criu"
	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/internal/undo"
)

// Prepared is a dump that is ready to begin.
type Prepared struct {
	c      Config
	reason string
	server *pageServer
	worker *criu.Worker
	view   *view // what CRIU is shown, in a described dump
	undo   undo.Stack
}

// Prepare makes everything ready while the container with these processes
// still runs: the nearer to the freeze, the more of it holds then. Processes
// that come later are fine.
func Prepare(c Config, pids []int) (*Prepared, error) {
	p := &Prepared{c: c}
	if err := p.prepare(pids); err != nil {
		p.Close()
		return nil, fault.New(fault.Checkpoint, "prepare dump: %w", err)
	}
	return p, nil
}

func (p *Prepared) prepare(pids []int) (err error) {
	if p.c.Mode, p.reason, err = Choose(p.c.Mode, p.c.Criu); err != nil {
		return err
	}
	if p.c.Cache != "" {
		if err := criu.Warm(p.c.Criu, p.c.Cache); err != nil {
			return err
		}
	}
	if p.server, err = newPageServer(); err != nil {
		return err
	}
	p.undo.Push("page server", func() error { _, _ = p.server.finish(); return nil })
	o := criu.StartOptions{Files: []*os.File{p.server.theirs}, Cache: p.c.Cache}
	if p.c.Mode == Described {
		if p.view, err = newView(p.c, pids, &o); err != nil {
			return err
		}
		p.undo.Push("view", func() error { p.view.close(); return nil })
	}
	if p.worker, err = criu.Start(p.c.Criu, o); err != nil {
		return err
	}
	p.undo.Push("criu", func() error { p.worker.Close(); return nil })
	return nil
}

// Mode is how memory is dealt with, and why not in a better way, "" if there
// is none.
func (p *Prepared) Mode() (mode Mode, reason string) { return p.c.Mode, p.reason }

// Close ends what Prepare has begun. Closing twice is fine.
func (p *Prepared) Close() { _ = p.undo.Run() }

// Dump sends the state of the frozen container to the sink, without the memory
// in the layout unless the mode is Copied. The container is frozen before and
// after, whether or not the dump succeeds. A dump that has begun is not cut
// short: when ctx ends, pages are discarded and the rest is quick. There is one
// dump to a preparation.
func (p *Prepared) Dump(ctx context.Context, l *track.Layout) (Stats, error) {
	start := time.Now()
	opts, err := p.options()
	if err != nil {
		return Stats{}, err
	}
	if p.view != nil {
		if err := p.view.show(l); err != nil {
			return Stats{}, fault.New(fault.Checkpoint, "dump: %w", err)
		}
	}
	if p.c.Mode != Stock {
		p.server.start(ctx, p.c.Sink)
	}
	var s Stats
	var failed error // in our part, which CRIU only hears of
	notify := func(script string, _ int) error {
		if script == "post-dump" {
			failed = p.finish(ctx, start, &s)
		}
		return failed
	}
	_, err = p.worker.Do(criu.Request{Type: rpc.CriuReqType_DUMP, Opts: opts, Notify: notify})
	if _, perr := p.server.finish(); failed == nil {
		failed = perr
	}
	switch {
	case failed != nil:
		return s, failed
	case err != nil:
		return s, explain(err, filepath.Join(p.c.Dir, logName))
	}
	return s, nil
}

// finish is called when CRIU has written its images.
func (p *Prepared) finish(ctx context.Context, start time.Time, s *Stats) (err error) {
	if p.c.Mode == Stock { // CRIU serves lazy pages next, and must find that nobody asks
		defer p.server.finish()
	} else if s.Pages, err = p.server.finish(); err != nil {
		return err
	}
	s.Collect = time.Since(start)
	if p.view != nil {
		s.Hidden = p.view.describer.Hidden()
	}
	return p.c.sendRest(ctx, s)
}

// CheckFlags makes sure that what CRIU was shown in place of the processes'
// smaps held. It may take 12 ms per GiB, and may run while the destination
// restores, but the processes must still be frozen. An error means that the
// images are not to be used.
func (p *Prepared) CheckFlags() error {
	if p.view == nil {
		return nil
	}
	return p.view.check()
}

// lazyConfig has CRIU's server of lazy pages on the socket that CRIU inherits.
// By RPC it could only be on a port, of all addresses (criu/cr-service.c,
// setup_opts_from_req). When the socket ends, so does the server, and the
// tasks stay as they are.
var lazyConfig = fmt.Sprintf("ps-socket %d\n", criu.FirstFile)

func (p *Prepared) options() (*rpc.CriuOpts, error) {
	o := p.c.options()
	if p.c.Mode != Stock {
		o.Ps = &rpc.CriuPageServerInfo{Fd: proto.Int32(criu.FirstFile)}
		return o, nil
	}
	config := filepath.Join(p.c.Dir, "criu.conf")
	if err := os.WriteFile(config, []byte(lazyConfig), 0o600); err != nil {
		return nil, fmt.Errorf("write criu's configuration: %w", err)
	}
	o.LazyPages, o.ConfigFile = proto.Bool(true), proto.String(config)
	return o, nil
}
