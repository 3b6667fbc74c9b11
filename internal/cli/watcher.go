package cli

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	"golang.org/x/term"

	"github.com/vzkit/vzkit/dump/track"
	"github.com/vzkit/vzkit/migrate"
	"github.com/vzkit/vzkit/transport"
)

// watcher shows how a migration gets on: a line for each phase that has ended
// and, on a terminal, one that is drawn again and again for the phase that
// goes on.
type watcher struct {
	mu       sync.Mutex
	out      io.Writer
	quiet    bool
	terminal bool
	drawn    bool // the line of the phase that goes on is on the terminal
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
		if w.terminal {
			fmt.Fprint(w.out, clearLine+bar(e))
			w.drawn = true
		}
	case migrate.Done:
		w.clear()
		fmt.Fprintf(w.out, "%-8s %10.1f ms", e.Phase, e.Millis)
		if e.Bytes > 0 {
			fmt.Fprintf(w.out, " %10.1f MiB", float64(e.Bytes)/(1<<20))
		}
		if e.Text != "" {
			fmt.Fprint(w.out, ", ", transport.Clean(e.Text))
		}
		fmt.Fprintln(w.out)
	case migrate.Rounded:
		w.clear()
		fmt.Fprintf(w.out, "%-8s %10.1f ms %10.1f MiB, %.1f MiB left, downtime would be %.0f ms: %s\n", e.Phase, e.Millis,
			float64(e.Bytes)/(1<<20), float64(e.Round.Dirty*track.PageSize)/(1<<20), e.Round.Predicted, e.Round.Decision)
	case migrate.Note:
		w.clear()
		fmt.Fprintln(w.out, "note:", e.Text)
	}
}

// clearLine goes to the beginning of the terminal's line and erases it.
const clearLine = "\r\x1b[K"

// barWidth is the length of a full bar, in characters.
const barWidth = 30

// bar shows how far a phase is: of an estimate, so it stops short of its end.
func bar(e migrate.Event) string {
	done := float64(e.Bytes) / (1 << 20)
	if e.Total == 0 {
		return fmt.Sprintf("%-8s %10.1f MiB", e.Phase, done)
	}
	share := min(float64(e.Bytes)/float64(e.Total), 0.99)
	full := int(share * barWidth)
	return fmt.Sprintf("%-8s [%s%s] %2.0f %% %10.1f MiB", e.Phase,
		strings.Repeat("#", full), strings.Repeat(".", barWidth-full), share*100, done)
}

// clear takes the drawn line off the terminal.
func (w *watcher) clear() {
	if w.drawn {
		fmt.Fprint(w.out, clearLine)
		w.drawn = false
	}
}

func (w *watcher) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.clear()
}
