// Package cli is the command lines of vzkit's programs: what each option is
// called, what is printed where, and which exit code an error becomes. The
// work is done in other packages.
//
// What a program says: results on standard output, everything else on
// standard error, as "NAME: error: what" and, where one helps, "NAME: hint: a
// sentence". Errors are lower case and have no full stop; hints are sentences.
// Nothing is printed before a command line has been understood as a whole.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/vzkit/vzkit/internal/fault"
)

// program is one of the programs: its streams and how its errors end it.
type program struct {
	name           string
	stdin          io.Reader
	stdout, stderr io.Writer
	code           func(error) int // exit code of an error
	parsed         bool            // the command line is right; what fails now is the command
	silent         bool            // its errors are told on another way than standard error
	root           bool            // refuses to run for anyone else
	raw            bool            // hands its standard output on to other programs
}

// run executes root with args and returns the exit code.
func (p *program) run(ctx context.Context, root *cobra.Command, args []string) int {
	root.SilenceUsage, root.SilenceErrors = true, true
	root.CompletionOptions.DisableDefaultCmd = true
	root.PersistentPreRunE = func(*cobra.Command, []string) error {
		p.parsed = true
		if p.root && os.Geteuid() != 0 {
			return fault.New(fault.Permission, "needs root").WithHint("Run it as root, or with sudo.")
		}
		return nil
	}
	results := &resultWriter{w: p.stdout}
	if !p.raw {
		p.stdout = results
	}
	root.SetArgs(args)
	root.SetIn(p.stdin)
	root.SetOut(p.stdout)
	root.SetErr(p.stderr)
	err := root.ExecuteContext(ctx)
	if err == nil && results.err != nil {
		err = fault.New(fault.Other, "write results: %w", results.err)
	}
	if err == nil {
		return 0
	}
	if !p.parsed {
		err = fault.New(fault.Usage, "%w", plainer(err)).WithHint("%s --help shows how it is used.", p.name)
	}
	if !p.silent {
		p.report(err)
	}
	return p.code(err)
}

// plainer says what a value of an option is not, without the words of the
// function that tried to read it.
func plainer(err error) error {
	var value *pflag.InvalidValueError
	var number *strconv.NumError
	if !errors.As(err, &value) || !errors.As(err, &number) {
		return err
	}
	want := "a number"
	switch {
	case value.GetFlag().Value.Type() == "bool":
		want = "true or false"
	case errors.Is(number, strconv.ErrRange):
		want = "a number in its range"
	}
	return fmt.Errorf("value %q of --%s is not %s", value.GetValue(), value.GetFlag().Name, want)
}

// resultWriter remembers that results could not be written: a script that
// reads them must not take nothing for an answer.
type resultWriter struct {
	w   io.Writer
	err error
}

func (r *resultWriter) Write(p []byte) (int, error) {
	n, err := r.w.Write(p)
	if err != nil && r.err == nil {
		r.err = err
	}
	return n, err
}

// report prints an error and its hint.
func (p *program) report(err error) {
	fmt.Fprintf(p.stderr, "%s: error: %v\n", p.name, err)
	if hint := fault.HintOf(err); hint != "" {
		fmt.Fprintf(p.stderr, "%s: hint: %s\n", p.name, hint)
	}
}
