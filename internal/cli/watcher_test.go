package cli

import (
	"strings"
	"testing"

	"github.com/vzkit/vzkit/migrate"
)

// On a terminal the line of a phase is erased before anything else is written.
func TestWatcherOnTerminal(t *testing.T) {
	var out strings.Builder
	w := &watcher{out: &out, terminal: true}
	w.see(migrate.Event{Kind: migrate.Progress, Phase: "files", Bytes: 50 << 20, Total: 100 << 20})
	w.see(migrate.Event{Kind: migrate.Progress, Phase: "files", Bytes: 200 << 20, Total: 100 << 20})
	w.see(migrate.Event{Kind: migrate.Done, Phase: "files", Millis: 12.5, Bytes: 100 << 20})
	w.see(migrate.Event{Kind: migrate.Progress, Phase: "dump", Bytes: 1 << 20})
	w.end()
	want := "\r\x1b[Kfiles    [###############...............] 50 %       50.0 MiB" +
		"\r\x1b[Kfiles    [#############################.] 99 %      200.0 MiB" +
		"\r\x1b[Kfiles          12.5 ms      100.0 MiB\n" +
		"\r\x1b[Kdump            1.0 MiB\r\x1b[K"
	if out.String() != want {
		t.Errorf("got  %q\nwant %q", out.String(), want)
	}
}

func TestWatcherElsewhere(t *testing.T) {
	var out strings.Builder
	w := newWatcher(&out, false)
	w.see(migrate.Event{Kind: migrate.Progress, Phase: "files", Bytes: 1})
	w.see(migrate.Event{Kind: migrate.Note, Text: "beware"})
	w.end()
	if out.String() != "note: beware\n" {
		t.Errorf("got %q", out.String())
	}
	quiet := newWatcher(&out, true)
	out.Reset()
	quiet.see(migrate.Event{Kind: migrate.Done, Phase: "files"})
	if out.String() != "" {
		t.Errorf("quiet, but says %q", out.String())
	}
}
