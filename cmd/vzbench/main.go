// Command vzbench measures what a live migration costs: see `vzbench --help`.
//
// Go's runtime would keep files of its cgroup open for good, which ties a
// container that runs `vzbench serve` to its host: the two settings below.
//
//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/vzkit/vzkit/internal/cli"
)

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal kills
	return cli.Vzbench(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
}
