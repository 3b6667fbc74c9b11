package cli

import (
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"github.com/vzkit/vzkit/migrate"
)

// watcher shows how a migration gets on: a line for each phase that has ended
// and, on a terminal, a bar for the one that goes on.
type watcher struct {
	mu       sync.Mutex
	out      io.Writer
	quiet    bool
	terminal bool
	bar      *progressbar.ProgressBar
	phase    string // of the bar
}

func newWatcher(out io.Writer, quiet bool) *watcher {
	f, ok := out.(*os.File)
	return &watcher{out: out, quiet: quiet, terminal: ok && term.IsTerminal(int(f.Fd()))}
}

// see takes the next event.
func (w *watcher) see(e migrate.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.quiet && e.Kind != migrate.Note {
		return
	}
	switch e.Kind {
	case migrate.Progress:
		w.progress(e)
	case migrate.Done:
		w.clear()
		fmt.Fprintf(w.out, "%-8s %10.1f ms", e.Phase, e.Millis)
		if e.Bytes > 0 {
			fmt.Fprintf(w.out, " %10.1f MiB", float64(e.Bytes)/(1<<20))
		}
		fmt.Fprintln(w.out)
	case migrate.Note:
		w.clear()
		fmt.Fprintln(w.out, "note:", e.Text)
	}
}

func (w *watcher) progress(e migrate.Event) {
	if !w.terminal {
		return
	}
	if w.bar == nil || w.phase != e.Phase {
		w.clear()
		total := int64(e.Total)
		if total == 0 {
			total = -1
		}
		w.phase = e.Phase
		w.bar = progressbar.NewOptions64(total, progressbar.OptionSetDescription(e.Phase), progressbar.OptionSetWriter(w.out),
			progressbar.OptionShowBytes(true), progressbar.OptionClearOnFinish(), progressbar.OptionSetWidth(30))
	}
	n := int64(e.Bytes)
	if e.Total > 0 {
		n = min(n, int64(e.Total)-1) // an estimate: the end is the phase's event
	}
	_ = w.bar.Set64(n) // a bar that cannot be drawn is no reason to stop
}

// clear takes the bar off the terminal.
func (w *watcher) clear() {
	if w.bar != nil {
		_ = w.bar.Clear()
		w.bar = nil
	}
}

func (w *watcher) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.clear()
}
