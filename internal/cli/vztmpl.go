package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/internal/version"
	"github.com/vzkit/vzkit/lifecycle"
	"github.com/vzkit/vzkit/lifecycle/template"
)

// Vztmpl is the command vztmpl: it builds, lists and removes OS templates. It
// returns the exit code, which is vzctl's for the same kind of error.
func Vztmpl(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	v := &vztmpl{program: program{name: "vztmpl", stdin: stdin, stdout: stdout, stderr: stderr, code: fault.VzctlCode}}
	return v.run(ctx, v.root(), args)
}

type vztmpl struct {
	program
	store template.Store
}

func (v *vztmpl) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "vztmpl",
		Short: "Build and list OS templates for containers", Version: version.String,
		Long: "vztmpl builds and lists OS templates for containers.\n\nTemplates that can be built: " +
			strings.Join(template.Buildable(), ", ") + ".\n\nExit status: 0, or vzctl's: 12 not root, 20 wrong command " +
			"line, 21 bad value,\n46 no space, 91 no such template, 130 interrupted, 3 other.",
	}
	root.PersistentFlags().StringVar(&v.store.Dir, "dir", lifecycle.Local().Templates().Dir, "template directory; also TEMPLATE in vz.conf")
	root.PersistentFlags().Lookup("dir").DefValue = filepath.Join(lifecycle.Local().Lib, "template")
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
			o.Progress = func(step string) { fmt.Fprintln(v.stderr, step) }
			info, err := v.store.Build(cmd.Context(), o)
			if err != nil {
				return err
			}
			fmt.Fprintf(v.stdout, "%s: %d packages, %d entries, %s\n",
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
			w := tabwriter.NewWriter(v.stdout, 0, 0, 2, ' ', 0)
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
				fmt.Fprintln(v.stdout, tarball)
			}
			return err
		},
	}
}

func (v *vztmpl) json(x any) {
	e := json.NewEncoder(v.stdout)
	e.SetIndent("", "  ")
	if err := e.Encode(x); err != nil {
		fmt.Fprintf(v.stderr, "vztmpl: print json: %v\n", err)
	}
}

func mebibytes(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }
