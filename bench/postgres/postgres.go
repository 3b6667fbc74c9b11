// Package postgres runs PostgreSQL in a container, under pgbench on the host
// admin, and tells whether anything of it was lost.
package postgres

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/vzkit/vzkit/bench/hosts"
	"github.com/vzkit/vzkit/internal/lab"
)

// Config says what database it is.
type Config struct {
	Rig     *hosts.Rig
	Address string // the container's
	// Exec is a shell command in the container, on the host where it is.
	Exec func(ctx context.Context, host, command string) *exec.Cmd

	Scale    int    // of pgbench's tables; each one is 15 MiB
	Buffers  string // shared_buffers, which are full in the beginning
	WAL      string // max_wal_size
	Unlogged bool   // the tables are in no write-ahead log
	Rate     int    // transactions a second; 0 is as many as it can
}

// Server is PostgreSQL and its clients.
type Server struct {
	Config
	client string // directory with the programs of the container's PostgreSQL
	bench  *exec.Cmd
	said   bytes.Buffer
	ended  chan error
}

// New is a server that does not run yet, in a container that does, made from
// the template [hosts.PostgreSQL].
func New(c Config) *Server { return &Server{Config: c, ended: make(chan error, 1)} }

const configure = `
conf=$(ls -d /etc/postgresql/*/main)
cat >>$conf/postgresql.conf <<'END'
listen_addresses = '*'
shared_buffers = BUFFERS
max_wal_size = WALSIZE
synchronous_commit = off
END
echo 'host all all 0.0.0.0/0 trust' >>$conf/pg_hba.conf
service postgresql restart`

// Start makes the tables, on alpha, and starts the clients.
func (p *Server) Start(ctx context.Context) (err error) {
	if p.client, err = os.MkdirTemp(filepath.Join(p.Rig.Lab.Dir, lab.Admin), "postgres-"); err != nil {
		return err
	}
	if err := p.Rig.Unpack(ctx, hosts.PostgreSQL, p.client); err != nil {
		return err
	}
	text := strings.NewReplacer("BUFFERS", p.Buffers, "WALSIZE", p.WAL).Replace(configure)
	if _, err := p.ask(ctx, hosts.Alpha, text); err != nil {
		return err
	}
	if err := hosts.Run(p.pgbench(ctx, p.initArgs()...), nil); err != nil {
		return err
	}
	prewarm := `su postgres -c "psql -qc 'create extension pg_prewarm' -c \"select pg_prewarm('pgbench_accounts')\""`
	if _, err := p.ask(ctx, hosts.Alpha, prewarm); err != nil {
		return err
	}
	return p.startBench(ctx)
}

func (p *Server) initArgs() []string {
	args := []string{"-q", "-i", "-s", strconv.Itoa(p.Scale)}
	if p.Unlogged {
		args = append(args, "--unlogged-tables")
	}
	return args
}

// ask runs a shell command in the container and returns what it prints.
func (p *Server) ask(ctx context.Context, host, command string) (string, error) {
	var out bytes.Buffer
	err := hosts.Run(p.Exec(ctx, host, command), &out)
	return strings.TrimSpace(out.String()), err
}

func (p *Server) startBench(ctx context.Context) error {
	args := []string{"-n", "-c", "4", "-T", "86400"}
	if p.Rate > 0 {
		args = append(args, "-R", strconv.Itoa(p.Rate))
	}
	p.bench = p.pgbench(ctx, args...)
	p.bench.Stdout, p.bench.Stderr = &p.said, &p.said
	if err := p.bench.Start(); err != nil {
		return err
	}
	go func() { p.ended <- p.bench.Wait() }()
	return nil
}

// pgbench runs the container's own pgbench on the host admin: the machine need
// not have one.
func (p *Server) pgbench(ctx context.Context, args ...string) *exec.Cmd {
	argv := []string{"chroot", p.client, "sh", "-c", `exec /usr/lib/postgresql/*/bin/pgbench "$@"`, "pgbench", "-h", p.Address, "-U", "postgres"}
	return p.Rig.On(ctx, lab.Admin, append(append(argv, args...), "postgres")...)
}

// sums is zero if all that pgbench was told is in the tables.
const sums = `select (select sum(abalance) from pgbench_accounts) - (select sum(delta) from pgbench_history)
	+ (select sum(bbalance) from pgbench_branches) - (select sum(tbalance) from pgbench_tellers)`

// Check tells whether the clients still run, and what they were told is there.
func (p *Server) Check(ctx context.Context, host string) error {
	select {
	case err := <-p.ended:
		p.ended <- err
		return fmt.Errorf("pgbench ended: %v: %s", err, p.said.String())
	default:
	}
	sum, err := p.ask(ctx, host, `su postgres -c "psql -Atc '`+strings.Join(strings.Fields(sums), " ")+`'"`)
	if err == nil && sum != "0" {
		err = fmt.Errorf("tables of pgbench differ by %s", sum)
	}
	return err
}

// Stop ends the clients.
func (p *Server) Stop() {
	if p.bench != nil && p.bench.Process != nil {
		_ = p.bench.Process.Kill()
		<-p.ended
	}
	if p.client != "" {
		_ = os.RemoveAll(p.client)
	}
}
