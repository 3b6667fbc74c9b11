// Command vzctl makes, runs and removes containers.
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
	// A terminal that goes away must not leave a container frozen: a hang-up is a
	// request to stop, and broken pipes are errors like others.
	signal.Ignore(syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	os.Exit(cli.Vzctl(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
