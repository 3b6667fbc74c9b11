// Command vzmigrate moves containers to other hosts while they run.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/vzkit/vzkit/internal/cli"
	"github.com/vzkit/vzkit/lifecycle/launch"
)

func main() {
	launch.Init()
	// A peer or a terminal that goes away must not end a migration half-way:
	// broken pipes are errors like others, and a hang-up is a request to stop.
	signal.Ignore(syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	os.Exit(cli.Vzmigrate(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
