package test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/vzkit/vzkit/migrate"
)

// A client's connection and all its records live through a move there and
// back.
func TestThereAndBackUnderWrites(t *testing.T) {
	t.Parallel()
	c := running(t, takePair(t))
	book := c.keepBook(t)
	c.migrate(t).wants(t, 0, "connect ", "check ", "files ", "memory ", "freeze ", "dump ", "send ", "restore ", "finish ",
		"downtime ", " ms (freeze ", ", total ", " MiB sent\n")
	book.goesOn(t)
	c.moved(t)
	c = c.back()
	report := decode(t, c.migrate(t, "--json", "--live", "--compress", "lz4"))
	book.isWhole(t)
	c.moved(t)
	want := migrate.Report{CTID: c.id, Source: c.src.Name(), Destination: c.dst.Name(), Live: true, Tracker: "uffd-wp"}
	if report.CTID != want.CTID || report.Source != want.Source || report.Destination != want.Destination ||
		report.Live != want.Live || report.Tracker != want.Tracker {
		t.Errorf("report %+v, want %+v", report, want)
	}
	checkSums(t, report)
}

// decode checks that a command printed one report on standard output, as
// docs/vzmigrate.schema.json describes it, and nothing else anywhere.
func decode(t *testing.T, o outcome) (r migrate.Report) {
	t.Helper()
	o.wants(t, 0)
	if o.stderr != "" {
		t.Errorf("standard error has %q beside the JSON", o.stderr)
	}
	schema, err := jsonschema.NewCompiler().Compile("../docs/vzmigrate.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	value, err := jsonschema.UnmarshalJSON(strings.NewReader(o.stdout))
	if err != nil {
		t.Fatalf("%v: %v", o, err)
	}
	if err := schema.Validate(value); err != nil {
		t.Errorf("%s\n%v", o.stdout, err)
	}
	if err := json.Unmarshal([]byte(o.stdout), &r); err != nil {
		t.Fatal(err)
	}
	return r
}

// checkSums checks that the figures of a report agree with each other.
func checkSums(t *testing.T, r migrate.Report) {
	t.Helper()
	still, all := 0.0, 0.0
	for _, p := range r.Phases {
		all += p.MS
		switch p.Name {
		case "freeze", "dump", "send", "restore":
			still += p.MS
		}
	}
	if d := r.Downtime - still; d > 1 || d < -1 || r.Downtime <= 0 {
		t.Errorf("downtime %.3f ms is not the sum of its phases, %.3f ms", r.Downtime, still)
	}
	if r.Total < all || r.WireBytes == 0 || r.MemoryBytes == 0 {
		t.Errorf("phases take %.3f ms, report is %+v", all, r)
	}
}

// Ten moves in a row of a container with several processes under one
// connection.
func TestTenInARow(t *testing.T) {
	t.Parallel()
	c := running(t, takePair(t))
	c.withSubject(t, c.src) // and its shell, with the sleep that it waits for; init and the server
	c.serve(t, c.src, "sh -c 'while :; do sleep 0.1; done'")
	book := c.keepBook(t)
	for i := range 10 {
		o := c.migrate(t, "--quiet")
		if o.wants(t, 0); o.stdout+o.stderr != "" {
			t.Errorf("quiet, but %v", o)
		}
		book.goesOn(t)
		if answer := c.ask(t, "check"); answer != "ok" {
			t.Errorf("after move %d: %s", i+1, answer)
		}
		c = c.back()
	}
	book.isWhole(t)
	c.back().moved(t)
}

// OpenVZ's two-argument form, on the source itself, and localhost for it.
func TestFromTheSourceItself(t *testing.T) {
	t.Parallel()
	c := running(t, takePair(t))
	report := decode(t, c.src.run(t, "vzmigrate", "--json", c.dst.Name(), c.ctid()))
	if report.Source != c.src.Name() || report.Destination != c.dst.Name() {
		t.Errorf("report %+v, want source %s and destination %s", report, c.src.Name(), c.dst.Name())
	}
	c.moved(t)
	c = c.back()
	c.src.run(t, "vzmigrate", "localhost", "root@"+c.dst.Addr().String(), c.ctid()).wants(t, 0, "downtime ")
	c.moved(t)
}

// A container is found by its NAME too, and keeps it.
func TestByName(t *testing.T) {
	t.Parallel()
	c := running(t, takePair(t), "--name", "web", "--hostname", "web.example")
	admin(t).run(t, "vzmigrate", c.src.Name(), c.dst.Name(), "web").wants(t, 0)
	c.moved(t)
	if got := c.dst.ok(t, "vzlist", "-H", "-o", "name,hostname,status"); got != "web  web.example  running" {
		t.Errorf("at the destination: %q", got)
	}
}

// tree describes all files of a container: type, mode, owner, size, time and
// content.
func (h host) tree(t *testing.T, c *container) string {
	t.Helper()
	return h.sh(t, `cd /var/lib/vz/private/%d && find . -mount -printf '%%p %%y %%m %%U:%%G %%s %%T@ %%l\n' | sort &&
		find . -mount -type f -print0 | sort -z | xargs -0 sha256sum`, c.id)
}

// A container that is stopped moves stopped: files, config, nothing else.
func TestCold(t *testing.T) {
	t.Parallel()
	c := newContainer(t, takePair(t))
	files, conf := c.src.tree(t, c), c.src.sh(t, "cat /etc/vz/conf/%d.conf", c.id)
	report := decode(t, c.migrate(t, "--json"))
	if report.Live || report.Downtime != 0 || report.MemoryBytes != 0 {
		t.Errorf("stopped container, but report %+v", report)
	}
	c.absentAt(t, c.src)
	if got := c.dst.tree(t, c); got != files {
		t.Errorf("files differ:\n%s", difference(got, files))
	}
	if got := c.dst.sh(t, "cat /etc/vz/conf/%d.conf", c.id); got != conf {
		t.Errorf("config is\n%s\nwas\n%s", got, conf)
	}
	want := fmt.Sprintf("CTID %d exist unmounted down", c.id)
	if got := c.dst.ok(t, "vzctl", "status", c.ctid()); got != want {
		t.Errorf("status %q, want %q", got, want)
	}
	if left := c.dst.sh(t, "ls -A /var/lib/vz/private"); left != c.ctid() {
		t.Errorf("private areas at the destination: %q", left)
	}
	c.dst.ok(t, "vzctl", "start", c.ctid())
}

// difference lists the lines that two texts do not share.
func difference(got, want string) string {
	var b strings.Builder
	for _, side := range []struct{ mark, lines, others string }{{"+", got, want}, {"-", want, got}} {
		for line := range strings.Lines(side.lines) {
			if !strings.Contains(side.others, line) {
				b.WriteString(side.mark + line)
			}
		}
	}
	return b.String()
}

// With -r no the private area stays at the source, and nothing else.
func TestKeepArea(t *testing.T) {
	t.Parallel()
	c := running(t, takePair(t))
	c.migrate(t, "-r", "no").wants(t, 0)
	c.runsAt(t, c.dst)
	area := fmt.Sprintf("/var/lib/vz/private/%d", c.id)
	if left := c.src.traces(t, c); left != area {
		t.Errorf("left at the source: %q, want %q", left, area)
	}
	c.src.sh(t, "test -x %s/usr/bin/vzbench && test -e /etc/vz/conf/%d.conf.migrated && rm -r %[1]s", area, c.id)
	c.absentAt(t, c.src)
}

// Changes that are made while the files go over arrive too.
func TestFilesChangeMeanwhile(t *testing.T) {
	t.Parallel()
	c := running(t, takePair(t))
	c.serve(t, c.src, `sh -c 'i=0; until [ -e /root/stop ]; do i=$((i+1)); echo $i >>/root/log; mkdir /root/d$i; `+
		`echo $i >/root/d$i/f; rm -rf /root/e$((i%%20)); mv /root/d$i /root/e$((i%%20)); done; touch /root/stopped'`)
	c.migrate(t).wants(t, 0)
	c.moved(t)
	// There was one writer, and it left no gap: what is missing or came twice
	// would show.
	c.dst.ok(t, "vzctl", "exec2", c.ctid(), `touch /root/stop; until [ -e /root/stopped ]; do sleep 0.1; done; `+
		`last=$(tail -n 1 /root/log); [ $(wc -l </root/log) = $last ] && sort -c -n -u /root/log && `+
		`[ $(cat /root/e$((last%20))/f) = $last ] && ! ls -d /root/d*`)
}
