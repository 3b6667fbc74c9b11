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
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	os.Exit(cli.Vzmigrate(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
