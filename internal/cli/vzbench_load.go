package cli

import (
	"context"
	"fmt"
	"net"

	"github.com/spf13/cobra"
	"golang.org/x/text/language"
	"golang.org/x/text/message"

	"github.com/vzkit/vzkit/bench/load"
)

func (v *vzbench) load() *cobra.Command {
	var addr string
	var check bool
	var c load.Config
	cmd := &cobra.Command{
		Use:   "load --addr HOST:PORT --keys N",
		Short: "Fill a Redis-compatible server with keys, or check them",
		Long: `Set key:00000000 and so on to values that follow from --seed, and compare the
size of the database. With --check nothing is set: all keys are read back and
compared with what the same --keys, --size and --seed would have set.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			do := fillKeys
			if check {
				do = checkKeys
			}
			return v.loadKeys(cmd.Context(), addr, c, do)
		},
	}
	cmd.Flags().StringVar(&addr, "addr", "", "the server, HOST:PORT")
	cmd.Flags().Uint64Var(&c.Keys, "keys", 0, "number of keys")
	cmd.Flags().IntVar(&c.Size, "size", 100, "bytes of each value")
	cmd.Flags().Uint64Var(&c.Seed, "seed", 1, "what the values follow from")
	cmd.Flags().BoolVar(&check, "check", false, "read the keys back instead and compare them")
	return cmd
}

// loadKeys connects to addr and does one of the two below.
func (v *vzbench) loadKeys(ctx context.Context, addr string, c load.Config,
	do func(context.Context, net.Conn, load.Config) (string, error)) error {
	if err := checkBenchAddress("addr", addr); err != nil {
		return err
	}
	if err := c.Validate(); err != nil {
		return err
	}
	conn, err := benchDialer(addr)(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	report, err := do(ctx, conn, c)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(v.stdout, report)
	return err
}

func fillKeys(ctx context.Context, conn net.Conn, c load.Config) (string, error) {
	took, err := load.Fill(ctx, conn, c)
	return message.NewPrinter(language.English).Sprintf("%d keys of %d bytes set in %.2f s, %.0f keys/s",
		c.Keys, c.Size, took.Seconds(), float64(c.Keys)/took.Seconds()), err
}

func checkKeys(ctx context.Context, conn net.Conn, c load.Config) (string, error) {
	d, err := load.Check(ctx, conn, c)
	if err == nil && d != (load.Damage{}) {
		err = fmt.Errorf("%d of %d keys missing, %d wrong", d.Missing, c.Keys, d.Wrong)
	}
	return message.NewPrinter(language.English).Sprintf("%d keys of %d bytes read back, all right", c.Keys, c.Size), err
}
