package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/google/renameio/v2"
	"github.com/spf13/cobra"
	"golang.org/x/term"
	"golang.org/x/text/language"
	"golang.org/x/text/message"

	"github.com/vzkit/vzkit/bench/ledger"
	"github.com/vzkit/vzkit/internal/fault"
)

type ledgerOptions struct {
	addr, verifyAddr   string
	interval, duration time.Duration
	jsonFile, pauseLog string
}

func (v *vzbench) ledger() *cobra.Command {
	var o ledgerOptions
	cmd := &cobra.Command{
		Use:   "ledger --addr HOST:PORT",
		Short: "Write numbered records over one connection and prove that none is lost",
		Long: `Open one connection to a Redis-compatible server, write a numbered record on it
at every interval, read it back, and keep the longest time without an
acknowledgement. The run ends after --duration, or else at SIGINT, SIGTERM or
the end of standard input if that is a pipe. Then every acknowledged record is
read back, on the same connection and on a fresh one.

Exit code 0 means: one connection the whole time, no acknowledged record
missing or altered. The records stay on the server as ledger:NAME:NUMBER, about
150 bytes each.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return v.keepLedger(cmd.Context(), o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.addr, "addr", "", "the server, HOST:PORT")
	f.StringVar(&o.verifyAddr, "verify-addr", "", "where the fresh connection goes (default: --addr)")
	f.DurationVar(&o.interval, "interval", ledger.DefaultInterval, "time between two records")
	f.DurationVar(&o.duration, "duration", 0, "how long to write (default: until stopped)")
	f.StringVar(&o.jsonFile, "json", "", "write the result to this file as a JSON object; - is standard output")
	f.StringVar(&o.pauseLog, "pause-log", "", "write each pause of 20 ms and more to this file as a JSON line")
	return cmd
}

func (o ledgerOptions) check() error {
	if err := checkBenchAddress("addr", o.addr); err != nil {
		return err
	}
	if o.duration < 0 {
		return fault.New(fault.BadValue, "duration %v negative", o.duration).WithHint("Give a duration such as 30s.")
	}
	return checkBenchAddress("verify-addr", o.verifyAddr)
}

func (v *vzbench) keepLedger(ctx context.Context, o ledgerOptions) error {
	if o.verifyAddr == "" {
		o.verifyAddr = o.addr
	}
	if err := o.check(); err != nil {
		return err
	}
	out, err := v.openLedgerOutput(o)
	if err != nil {
		return err
	}
	defer out.close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if o.duration > 0 {
		ctx, cancel = context.WithTimeout(ctx, o.duration)
		defer cancel()
	} else if stdinEndsRun(v.stdin) {
		go func() { io.Copy(io.Discard, v.stdin); cancel() }()
	}
	result, _ := ledger.Run(ctx, ledger.Config{
		Dial:       benchDialer(o.addr),
		VerifyDial: benchDialer(o.verifyAddr),
		Interval:   o.interval,
		OnPause:    out.pause,
		OnStatus:   out.status,
	})
	if err := out.result(result); err != nil {
		return err
	}
	return result.Check()
}

// stdinEndsRun says whether the end of stdin ends a run. It does for a pipe, whose
// other end someone holds; not for /dev/null, a file or a terminal.
func stdinEndsRun(stdin io.Reader) bool {
	file, ok := stdin.(*os.File)
	if !ok {
		return stdin != nil
	}
	info, err := file.Stat()
	return err == nil && info.Mode()&(fs.ModeNamedPipe|fs.ModeSocket) != 0
}

// ledgerOutput is where a run's figures go. Files are opened before the run,
// so that a path which cannot be written is refused in time; the JSON file
// appears only when it is whole.
type ledgerOutput struct {
	text     io.Writer // the result for people
	progress io.Writer
	terminal bool
	json     io.Writer
	pending  *renameio.PendingFile
	pauses   *os.File
	ticks    int
	printer  *message.Printer
}

func (v *vzbench) openLedgerOutput(o ledgerOptions) (*ledgerOutput, error) {
	out := &ledgerOutput{
		text: v.stdout, progress: v.stderr, printer: message.NewPrinter(language.English),
	}
	if file, ok := out.progress.(*os.File); ok {
		out.terminal = term.IsTerminal(int(file.Fd()))
	}
	var err error
	switch o.jsonFile {
	case "":
	case "-":
		out.text, out.json = out.progress, out.text
	default:
		if out.pending, err = renameio.NewPendingFile(o.jsonFile, renameio.WithPermissions(0o644)); err != nil {
			return nil, fmt.Errorf("create JSON file: %w", err)
		}
		out.json = out.pending
	}
	if o.pauseLog != "" {
		if out.pauses, err = os.Create(o.pauseLog); err != nil {
			out.close()
			return nil, fmt.Errorf("create pause log: %w", err)
		}
	}
	return out, nil
}

func (out *ledgerOutput) close() {
	if out.pending != nil {
		out.pending.Cleanup()
	}
	if out.pauses != nil {
		out.pauses.Close()
	}
}

func (out *ledgerOutput) pause(p ledger.Pause) {
	if out.pauses != nil {
		json.NewEncoder(out.pauses).Encode(p)
	}
}

// status shows how the run stands: on a terminal a line that is rewritten each
// second, elsewhere a line each five seconds.
func (out *ledgerOutput) status(s ledger.Status) {
	out.ticks++
	line := out.printer.Sprintf("%.0f s: %d acknowledged, longest pause %.0f ms, silent for %.0f ms",
		s.Elapsed.Seconds(), s.Acked, s.Longest.MS, float64(s.Silence)/float64(time.Millisecond))
	if s.Verified > 0 {
		line = out.printer.Sprintf("%.0f s: %d of %d read back", s.Elapsed.Seconds(), s.Verified, s.Acked)
	}
	switch {
	case out.terminal:
		fmt.Fprintf(out.progress, "\r\x1b[K%s", line)
	case out.ticks%5 == 0:
		fmt.Fprintln(out.progress, line)
	}
}

func (out *ledgerOutput) result(r ledger.Result) error {
	if out.terminal && out.ticks > 0 {
		fmt.Fprint(out.progress, "\r\x1b[K")
	}
	if r.Sent > 0 {
		fmt.Fprintln(out.text, r)
	}
	if out.json == nil {
		return nil
	}
	if err := writeBenchJSON(out.json, r); err != nil {
		return fmt.Errorf("write JSON result: %w", err)
	}
	if out.pending == nil {
		return nil
	}
	return out.pending.CloseAtomicallyReplace()
}
