// Command vztmpl builds and lists OS templates.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/vzkit/vzkit/internal/cli"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := cli.Vztmpl(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
