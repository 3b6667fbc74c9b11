package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/lifecycle/template"
)

// Vztmpl is the command vztmpl: it builds, lists and removes OS templates. It
// returns the exit code, which is vzctl's for the same kind of error.
func Vztmpl(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	v := &vztmpl{out: stdout, err: stderr}
	root := v.command()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	if !v.parsed {
		err = fault.New(fault.Usage, "%w", err).WithHint("See `vztmpl --help`.")
	}
	fmt.Fprintf(stderr, "vztmpl: %v\n", err)
	if hint := fault.HintOf(err); hint != "" {
		fmt.Fprintf(stderr, "hint: %s\n", hint)
	}
	return fault.VzctlCode(err)
}

type vztmpl struct {
	store    template.Store
	out, err io.Writer
	parsed   bool // the command line is right; what fails now is the command
}

func (v *vztmpl) command() *cobra.Command {
	root := &cobra.Command{
		Use:   "vztmpl",
		Short: "Build and list OS templates for containers",
		Long: "vztmpl builds and lists OS templates for containers.\n\nTemplates that can be built: " +
			strings.Join(template.Buildable(), ", ") + ".\n\nExit status: 0, or vzctl's: 9 locked, 12 not root, " +
			"20 wrong command line,\n21 bad value, 91 no such template, 130 interrupted, 3 other.",
		SilenceUsage: true, SilenceErrors: true,
		PersistentPreRun: func(*cobra.Command, []string) { v.parsed = true },
	}
	root.CompletionOptions.DisableDefaultCmd = true
	root.PersistentFlags().StringVar(&v.store.Dir, "dir", template.DefaultDir, "template directory")
	root.AddCommand(v.build(), v.list(), v.info(), v.remove(), v.path())
	return root
}

func (v *vztmpl) build() *cobra.Command {
	var o template.BuildOptions
	cmd := &cobra.Command{
		Use:   "build NAME",
		Short: "Build a template, replacing one of the same name",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.Name = args[0]
			o.Progress = func(step string) { fmt.Fprintln(v.err, step) }
			info, err := v.store.Build(cmd.Context(), o)
			if err != nil {
				return err
			}
			fmt.Fprintf(v.out, "%s: %d packages, %d entries, %s\n",
				info.Name, len(info.Packages), info.Entries, mebibytes(info.Size))
			return nil
		},
	}
	cmd.Flags().StringVar(&o.As, "as", "", "store it under this name")
	cmd.Flags().StringSliceVar(&o.Packages, "include", nil, "more Debian packages, comma-separated")
	return cmd
}

func (v *vztmpl) list() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the templates",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			all, err := v.store.List()
			if asJSON {
				if all == nil {
					all = []template.Info{}
				}
				v.json(all)
				return err
			}
			w := tabwriter.NewWriter(v.out, 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "NAME\tDISTRIBUTION\tRELEASE\tARCH\tSIZE\tUNPACKED\tBUILT")
			for _, t := range all {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", t.Name, t.Distribution, t.Release, t.Arch,
					mebibytes(t.Size), mebibytes(t.Unpacked), t.Built.Format("2006-01-02"))
			}
			w.Flush()
			return err
		},
	}
	cmd.Flags().BoolVarP(&asJSON, "json", "j", false, "print JSON")
	return cmd
}

func (v *vztmpl) info() *cobra.Command {
	return &cobra.Command{
		Use:   "info NAME",
		Short: "Print what is known about a template, as JSON",
		Args:  cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			info, err := v.store.Lookup(args[0])
			if err != nil {
				return err
			}
			v.json(info)
			return nil
		},
	}
}

func (v *vztmpl) remove() *cobra.Command {
	return &cobra.Command{
		Use:   "remove NAME",
		Short: "Delete a template",
		Args:  cobra.ExactArgs(1),
		RunE:  func(_ *cobra.Command, args []string) error { return v.store.Remove(args[0]) },
	}
}

func (v *vztmpl) path() *cobra.Command {
	return &cobra.Command{
		Use:   "path NAME",
		Short: "Print the file name of a template's tarball",
		Args:  cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if _, err := v.store.Lookup(args[0]); err != nil {
				return err
			}
			tarball, err := v.store.Path(args[0])
			if err == nil {
				fmt.Fprintln(v.out, tarball)
			}
			return err
		},
	}
}

func (v *vztmpl) json(x any) {
	e := json.NewEncoder(v.out)
	e.SetIndent("", "  ")
	if err := e.Encode(x); err != nil {
		fmt.Fprintf(v.err, "vztmpl: print json: %v\n", err)
	}
}

func mebibytes(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }
