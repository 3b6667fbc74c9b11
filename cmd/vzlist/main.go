// Command vzlist lists containers.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/vzkit/vzkit/internal/cli"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	os.Exit(cli.Vzlist(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
