package downtime

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"github.com/vzkit/vzkit/bench/hosts"
	"github.com/vzkit/vzkit/internal/lab"
)

// postgresLoad is PostgreSQL with shared buffers that are full, and pgbench on
// the host admin.
type postgresLoad struct {
	place
	client string // directory with the programs of the container's PostgreSQL
	bench  *exec.Cmd
	said   bytes.Buffer
	ended  chan error
}

func newPostgres(p place) load { return &postgresLoad{place: p, ended: make(chan error, 1)} }

// scale makes tables that are somewhat larger than the shared buffers.
const scale = "75"

const configure = `
conf=$(ls -d /etc/postgresql/*/main)
cat >>$conf/postgresql.conf <<'END'
listen_addresses = '*'
shared_buffers = 1GB
max_wal_size = 4GB
synchronous_commit = off
END
echo 'host all all 0.0.0.0/0 trust' >>$conf/pg_hba.conf
service postgresql restart`

func (p *postgresLoad) start(ctx context.Context) (err error) {
	if p.client, err = os.MkdirTemp("", "vzbench-"); err != nil {
		return err
	}
	if err := p.rig.Unpack(ctx, postgresql, p.client); err != nil {
		return err
	}
	if _, err := p.ask(ctx, alpha, configure); err != nil {
		return err
	}
	if err := hosts.Run(p.pgbench(ctx, "-q", "-i", "--unlogged-tables", "-s", scale), nil); err != nil {
		return err
	}
	prewarm := `su postgres -c "psql -qc 'create extension pg_prewarm' -c \"select pg_prewarm('pgbench_accounts')\""`
	if _, err := p.ask(ctx, alpha, prewarm); err != nil {
		return err
	}
	return p.startBench(ctx)
}

func (p *postgresLoad) startBench(ctx context.Context) error {
	p.bench = p.pgbench(ctx, "-n", "-c", "4", "-T", "86400")
	p.bench.Stdout, p.bench.Stderr = &p.said, &p.said
	if err := p.bench.Start(); err != nil {
		return err
	}
	go func() { p.ended <- p.bench.Wait() }()
	return nil
}

// pgbench runs the container's own pgbench on the host admin: the machine need
// not have one.
func (p *postgresLoad) pgbench(ctx context.Context, args ...string) *exec.Cmd {
	argv := []string{"chroot", p.client, "sh", "-c", `exec /usr/lib/postgresql/*/bin/pgbench "$@"`, "pgbench", "-h", address, "-U", "postgres"}
	return p.rig.On(ctx, lab.Admin, append(append(argv, args...), "postgres")...)
}

// sums is zero if all that pgbench was told is in the tables.
const sums = `select (select sum(abalance) from pgbench_accounts) - (select sum(delta) from pgbench_history)
	+ (select sum(bbalance) from pgbench_branches) - (select sum(tbalance) from pgbench_tellers)`

func (p *postgresLoad) check(ctx context.Context, host string) error {
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

func (p *postgresLoad) stop() {
	if p.bench != nil && p.bench.Process != nil {
		_ = p.bench.Process.Kill()
		<-p.ended
	}
	if p.client != "" {
		_ = os.RemoveAll(p.client)
	}
}
