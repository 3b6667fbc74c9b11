package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/google/renameio/v2"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/vzkit/vzkit/bench/kv"
	"github.com/vzkit/vzkit/internal/fault"
)

func (v *vzbench) serve() *cobra.Command {
	var listen, pidfile string
	var maxMemory int64
	cmd := &cobra.Command{
		Use:   "serve --listen HOST:PORT",
		Short: "Serve keys and values in memory, as a small Redis would",
		Long: `Serve keys and values in memory until SIGINT or SIGTERM.

Speaks the Redis protocol (RESP2): PING, SET, GET, MGET, DEL, DBSIZE, FLUSHALL,
INFO, CONFIG GET, COMMAND, QUIT. There is no password: listen where only the
benchmark's own clients can connect. Standard input is closed at once, so that
nothing outside a container is held open; redirect the output for the same
reason.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return v.serveKeys(cmd.Context(), listen, pidfile, maxMemory)
		},
	}
	cmd.Flags().StringVar(&listen, "listen", "", "address to listen on, HOST:PORT; port 0 is any")
	cmd.Flags().StringVar(&pidfile, "pidfile", "", "write the process ID to this file when ready")
	cmd.Flags().Int64Var(&maxMemory, "max-memory", kv.DefaultMaxBytes, "bytes of keys and values to hold at most")
	return cmd
}

func (v *vzbench) serveKeys(ctx context.Context, listen, pidfile string, maxMemory int64) error {
	if err := checkBenchAddress("listen", listen); err != nil {
		return err
	}
	ln, err := kv.Listen(ctx, listen)
	if err != nil {
		return fault.New(fault.Network, "listen on %q: %w", listen, err).
			WithHint("Choose a local address and a port that no other program uses.")
	}
	defer ln.Close()
	if err := detachStdin(v.stdin); err != nil {
		return err
	}
	if pidfile != "" {
		if err := renameio.WriteFile(pidfile, []byte(strconv.Itoa(os.Getpid())+"\n"), 0o644); err != nil {
			return fmt.Errorf("write pid file: %w", err)
		}
		defer os.Remove(pidfile)
	}
	fmt.Fprintf(v.stdout, "listening on %s\n", ln.Addr())
	return kv.New(maxMemory).Serve(ctx, ln)
}

// detachStdin puts /dev/null in the place of the process's standard input. A
// reader that is not the process's own is left alone, and never read.
func detachStdin(stdin io.Reader) error {
	if stdin != io.Reader(os.Stdin) {
		return nil
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return fmt.Errorf("close standard input: %w", err)
	}
	defer null.Close()
	if err := unix.Dup3(int(null.Fd()), int(os.Stdin.Fd()), 0); err != nil {
		return fmt.Errorf("close standard input: %w", err)
	}
	return nil
}
