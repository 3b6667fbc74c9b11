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
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	os.Exit(cli.Vzctl(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
