package files

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"time"

	"github.com/vzkit/vzkit/bench/hog"
	"github.com/vzkit/vzkit/bench/hosts"
	"github.com/vzkit/vzkit/bench/postgres"
	"github.com/vzkit/vzkit/bench/probe"
)

// databaseScene is a running container with PostgreSQL under load, and few or
// many small files beside it. Most of the many are on the host's disk beside
// the container while they are not in it, so that it is the same database that
// moves with either.
type databaseScene struct {
	*stage
	few, rest tree
	server    *postgres.Server
	client    hog.Client
}

// Where most files are, in the container and beside it on alpha.
const (
	withinRest = "srv/rest"
	restAside  = state + "/bench-rest"
)

func newDatabase(s *stage) scene {
	few := s.scaled(besideFew, filesInDir)
	d := &databaseScene{stage: s, few: tree{few, smallLimit}, rest: tree{s.scaled(manySmall, 2*few) - few, smallLimit}}
	d.server = postgres.New(postgres.Config{
		Rig: s.Rig, Address: address, Exec: d.exec, Scale: 15, Buffers: "256MB", WAL: "512MB", Rate: 300,
	})
	d.client.Dial = func(ctx context.Context) (net.Conn, error) { return s.Dial(ctx, address, hog.ControlPort) }
	return d
}

func (d *databaseScene) exec(ctx context.Context, host, command string) *exec.Cmd {
	return d.On(ctx, host, "vzctl", "exec2", ctid, command)
}

func (d *databaseScene) set(ctx context.Context) error {
	if err := d.create(ctx, hosts.PostgreSQL); err != nil {
		return err
	}
	if err := errors.Join(d.makeTree(ctx, d.few, within), d.makeTree(ctx, d.rest, withinRest)); err != nil {
		return err
	}
	if err := errors.Join(d.putRest(false), d.start(ctx)); err != nil {
		return err
	}
	// It answers the client outside.
	echo := d.exec(ctx, hosts.Alpha, "setsid vzbench hog --memory 1048576 --content random </dev/null >/dev/null 2>&1 &")
	if err := hosts.Run(echo, nil); err != nil {
		return err
	}
	if err := d.ready(ctx); err != nil {
		return fmt.Errorf("container does not answer: %w", err)
	}
	if err := d.server.Start(ctx); err != nil {
		return err
	}
	_, err := d.toAndFro(ctx, 0, d.few.files) // the first move takes longer than any other
	return err
}

// readyIn is how long a container may take to answer.
const readyIn = 2 * time.Minute

func (d *databaseScene) ready(ctx context.Context) (err error) {
	for end := time.Now().Add(readyIn); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if err = d.client.Reset(ctx); err == nil || ctx.Err() != nil {
			break
		}
	}
	return err
}

func (d *databaseScene) end() { d.server.Stop() }

// putRest puts most files into the container on alpha, or beside it.
func (d *databaseScene) putRest(in bool) error {
	there, aside := d.on(hosts.Alpha, private+"/"+withinRest), d.on(hosts.Alpha, restAside)
	if in {
		return os.Rename(aside, there)
	}
	return os.Rename(there, aside)
}

// run moves the container to and fro with either number of files.
func (d *databaseScene) run(ctx context.Context, n int) ([]Run, error) {
	few := func() ([]Run, error) { return d.toAndFro(ctx, n, d.few.files) }
	many := func() (runs []Run, err error) {
		if err := d.putRest(true); err != nil {
			return nil, err
		}
		if runs, err = d.toAndFro(ctx, n, d.few.files+d.rest.files); err == nil {
			err = d.putRest(false)
		}
		return runs, err
	}
	return turns(n, few, many)
}

func (d *databaseScene) toAndFro(ctx context.Context, n, files int) ([]Run, error) {
	there, err := d.watched(ctx, hosts.Alpha, hosts.Beta, Run{Case: busyDatabase, Mover: vzkit, Number: 2*n - 1, Files: files})
	if err != nil {
		return nil, err
	}
	back, err := d.watched(ctx, hosts.Beta, hosts.Alpha, Run{Case: busyDatabase, Mover: vzkit, Number: 2 * n, Files: files})
	return []Run{there, back}, err
}

// watched moves the container while a client outside watches.
func (d *databaseScene) watched(ctx context.Context, from, to string, run Run) (Run, error) {
	conn, err := d.Dial(ctx, address, hog.EchoPort)
	if err != nil {
		return run, err
	}
	var a account
	var link uint64
	seen, err := probe.During(conn, func() (err error) {
		a, link, err = d.migrate(ctx, from, to)
		return err
	})
	if err != nil {
		return run, err
	}
	frozen, err := a.frozen()
	if err != nil {
		return run, err
	}
	run.took(a, frozen.MS, link)
	run.Outside = millis(seen.Gap)
	return run, d.verify(ctx, to, run.Files)
}

// verify checks that nothing was lost.
func (d *databaseScene) verify(ctx context.Context, host string, files int) error {
	if err := d.server.Check(ctx, host); err != nil {
		return err
	}
	there, err := regular(d.on(host, private+"/srv"))
	if err == nil && len(there) != files {
		err = fmt.Errorf("%d of %d files there", len(there), files)
	}
	return errors.Join(err, d.client.Verify(ctx))
}
