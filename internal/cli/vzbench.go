package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/spf13/cobra"

	"github.com/vzkit/vzkit/bench"
	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/internal/version"
)

// vzbench is the program's streams; each command is a method.
type vzbench struct {
	program
}

// Vzbench is the program vzbench without its process. Its exit code is 0 if
// all is well, 1 if something failed or harm was found, 2 for a command line
// that cannot be used.
func Vzbench(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	v := &vzbench{program{name: "vzbench", stdin: stdin, stdout: stdout, stderr: stderr, code: benchCode}}
	return v.run(ctx, v.root(), args)
}

// benchCode is the exit code of an error.
func benchCode(err error) int {
	if k := fault.KindOf(err); k == fault.Usage || k == fault.BadValue {
		return 2
	}
	return 1
}

func (v *vzbench) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "vzbench",
		Short: "Measure what a live migration does to those who use the container",
		Long: `Measure what a live migration does to those who use the container.

Exit status: 0 all is well, 1 something failed or harm was found, 2 the command
line cannot be used.`,
	}
	root.AddCommand(v.serve(), v.load(), v.ledger(), v.downtime(), v.files(), v.hog(), v.rewrite(), v.env(), v.version())
	return root
}

func (v *vzbench) version() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintf(v.stdout, "vzbench %s\n", version.String)
			return err
		},
	}
}

func (v *vzbench) env() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "env",
		Short: "Describe this machine, as benchmark reports do",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			env := bench.Environment(cmd.Context())
			if asJSON {
				return writeBenchJSON(v.stdout, env)
			}
			_, err := fmt.Fprintf(v.stdout,
				"kernel  %s\ncpu     %s\ncores   %d\nmemory  %d MiB\ngo      %s\ncriu    %s\nvzkit   %s\ncgroup  %s\n",
				env.Kernel, env.CPU, env.Cores, env.Memory>>20, env.Go, env.CRIU, env.Vzkit, env.Cgroup)
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return cmd
}

func writeBenchJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// checkBenchAddress refuses what is not HOST:PORT.
func checkBenchAddress(flag, addr string) error {
	if _, port, err := net.SplitHostPort(addr); err != nil || port == "" {
		return fault.New(fault.BadValue, "address %q of --%s unusable", addr, flag).
			WithHint("Give --%s HOST:PORT, for instance 127.0.0.1:6379.", flag)
	}
	return nil
}

// benchDialer returns a function that connects to addr within ten seconds.
func benchDialer(addr string) func(context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) {
		d := net.Dialer{Timeout: 10 * time.Second}
		conn, err := d.DialContext(ctx, "tcp", addr)
		if err != nil {
			return nil, fault.New(fault.Connect, "connect to %q: %w", addr, err).
				WithHint("See that a server listens there: `vzbench serve --listen %s` is one.", addr)
		}
		return conn, nil
	}
}
