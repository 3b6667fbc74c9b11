package downtime

import (
	"context"

	"github.com/vzkit/vzkit/bench/postgres"
)

// postgresLoad is PostgreSQL with tables that are somewhat larger than its
// shared buffers.
type postgresLoad struct{ server *postgres.Server }

func newPostgres(p place) load {
	return postgresLoad{postgres.New(postgres.Config{
		Rig: p.rig.Rig, Address: address, Exec: p.mover.exec, Scale: 75, Buffers: "1GB", WAL: "4GB", Unlogged: true,
	})}
}

func (p postgresLoad) start(ctx context.Context) error { return p.server.Start(ctx) }

func (p postgresLoad) check(ctx context.Context, host string) error { return p.server.Check(ctx, host) }

func (p postgresLoad) stop() { p.server.Stop() }
