// Command vzlab makes hosts for trying migrations out, on one machine.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/vzkit/vzkit/internal/cli"
	"github.com/vzkit/vzkit/internal/lab"
)

func main() {
	lab.Init()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	os.Exit(cli.Vzlab(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
