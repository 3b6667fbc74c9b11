package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/vzkit/vzkit/bench/hog"
)

// hog is what the downtime benchmark runs inside its containers.
func (v *vzbench) hog() *cobra.Command {
	c := hog.Config{Content: hog.Random}
	var host string
	cmd := &cobra.Command{
		Use: "hog", Short: "Keep memory busy inside a container that is measured", Args: cobra.NoArgs, Hidden: true,
		RunE: func(cmd *cobra.Command, _ []string) error { return v.keepHog(cmd.Context(), host, c) },
	}
	f := cmd.Flags()
	f.Uint64Var(&c.Memory, "memory", 64<<20, "bytes")
	f.StringVar((*string)(&c.Content), "content", string(hog.Random), "what pages hold: random or mixed")
	f.Float64Var(&c.Rate, "rate", 0, "bytes of pages written a second")
	f.IntVar(&c.Writers, "writers", 0, "threads that write")
	f.IntVar(&c.Children, "children", 0, "forked processes that share the memory at first")
	f.StringVar(&host, "host", "0.0.0.0", "address to listen on")
	return cmd
}

func (v *vzbench) keepHog(ctx context.Context, host string, c hog.Config) error {
	if err := c.Check(); err != nil {
		return err
	}
	if err := detachStdin(v.stdin); err != nil {
		return err
	}
	return hog.Run(ctx, host, c)
}
