package files

import (
	"bytes"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vzkit/vzkit/bench/hosts"
	"github.com/vzkit/vzkit/bench/report"
	"github.com/vzkit/vzkit/internal/fault"
)

func row(t *testing.T, rows []report.Row, name string) report.Row {
	t.Helper()
	for _, r := range rows {
		if r.Case == name {
			return r
		}
	}
	t.Fatalf("no row %q in %+v", name, rows)
	return report.Row{}
}

func is(b *bool, want bool) bool { return b != nil && *b == want }

func TestRows(t *testing.T) {
	rows := Rows([]Run{
		{Case: debianCold, Mover: vzkit, MS: 50}, {Case: debianCold, Mover: vzkit, MS: 60}, {Case: debianCold, Mover: vzkit, MS: 900},
		{Case: debianCold, Mover: peer, MS: 100},
		{Case: smallUnchanged, Mover: vzkit, MS: 60},
		{Case: movedBack, Mover: vzkit, Link: 4, Content: 100}, {Case: movedBack, Mover: peer, Link: 2, Content: 100},
		{Case: memory1m, Mover: vzkit, SrcPeak: 100 * mib, DstPeak: 201 * mib},
	})
	if r := row(t, rows, "debian-cold: file passes"); *r.Ratio != 0.6 || !is(r.Holds, true) || !is(r.Reached, false) {
		t.Errorf("%+v", r)
	}
	if r := row(t, rows, "small-unchanged: second pass"); r.Ratio != nil || r.Holds != nil || r.Required == "" {
		t.Errorf("without a peer: %+v", r)
	}
	if r := row(t, rows, "moved-back: bytes between the hosts"); *r.Ours != 4 || !is(r.Holds, false) || r.Reached != nil {
		t.Errorf("%+v", r)
	}
	if r := row(t, rows, "memory: memory of the source"); !is(r.Holds, true) {
		t.Errorf("%+v", r)
	}
	if r := row(t, rows, "memory: memory of the destination"); !is(r.Holds, false) {
		t.Errorf("%+v", r)
	}
}

func TestFrozenRows(t *testing.T) {
	runs := []Run{
		{Case: frozen100, Mover: vzkit, Files: fewSmall, MS: 8}, {Case: frozen100, Mover: vzkit, Files: manySmall, MS: 20},
		{Case: frozen100, Mover: peer, Files: manySmall, MS: 2000},
	}
	rows := Rows(runs)
	if r := row(t, rows, "frozen-100: frozen pass, 200000 files"); !is(r.Holds, true) || !is(r.Reached, false) || *r.PeerValue != 2000 {
		t.Errorf("%+v", r)
	}
	if r := row(t, rows, "frozen-100: frozen pass, 20000 files"); !is(r.Reached, true) || r.PeerValue != nil {
		t.Errorf("%+v", r)
	}
	if r := row(t, rows, "frozen-100: 200000 files of 20000 files"); *r.Ours != 2.5 || !is(r.Holds, false) {
		t.Errorf("%+v", r)
	}
	if alone := Rows(runs[:1]); len(alone) != 1 {
		t.Errorf("one size is compared: %+v", alone)
	}
}

func TestDatabaseRows(t *testing.T) {
	run := func(files int, downtime, frozen float64) Run {
		return Run{Case: busyDatabase, Mover: vzkit, Files: files, Downtime: downtime, Outside: downtime + 2, MS: frozen}
	}
	runs := []Run{
		run(2000, 300, 9), run(2000, 310, 8), run(2000, 900, 7),
		run(200_000, 335, 20), run(200_000, 341, 21), run(200_000, 100, 22),
	}
	rows := Rows(runs)
	if r := row(t, rows, "busy-database: downtime, 200000 files above 2000 files"); *r.Ours != 25 || !is(r.Holds, true) || r.Unit != "ms" {
		t.Errorf("%+v", r)
	}
	if r := row(t, rows, "busy-database: downtime seen outside, 2000 files"); *r.Ours != 312 || r.Required != "" {
		t.Errorf("%+v", r)
	}
	if r := row(t, rows, "busy-database: frozen pass, 200000 files"); *r.Ours != 21 || r.Holds != nil {
		t.Errorf("%+v", r)
	}
	runs[5].Downtime = 341
	if r := row(t, Rows(runs), "busy-database: downtime, 200000 files above 2000 files"); *r.Ours != 31 || !is(r.Holds, false) {
		t.Errorf("%+v", r)
	}
	for _, r := range Rows(runs[:3]) {
		if r.Required != "" {
			t.Errorf("one size is compared: %+v", r)
		}
	}
}

func TestNeed(t *testing.T) {
	p := play{need: hosts.Need{Bytes: 10 * gib, Inodes: 1000}}
	half, twice := Config{Scale: 0.5}.need(p), Config{Scale: 2}.need(p)
	if twice.Bytes-half.Bytes != 15*gib || twice.Inodes-half.Inodes != 1500 || half.Bytes <= 5*gib {
		t.Errorf("%+v, %+v", half, twice)
	}
	c := Config{Cases: Names(), Runs: 1, Scale: maxScale, Dir: t.TempDir()}
	if err := c.Check(); fault.KindOf(err) != fault.NoSpace {
		t.Errorf("hundred times all: %v", err)
	}
}

func TestEveryCaseIsPlayed(t *testing.T) {
	for _, name := range Names() {
		c := Config{Cases: []string{name}}
		var played bool
		for _, p := range plays {
			played = played || c.plays(p)
		}
		if !played || (len(figures[name]) == 0 && name != frozen100 && name != busyDatabase) {
			t.Errorf("case %s: played %v, figures %v", name, played, figures[name])
		}
	}
}

func TestConfigRefusals(t *testing.T) {
	good := Config{Cases: Names(), Runs: 1, Scale: 0.001, Dir: t.TempDir()}
	if err := good.Check(); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(*Config){
		"no case":              func(c *Config) { c.Cases = nil },
		`case "x" unknown`:     func(c *Config) { c.Cases = []string{"x"} },
		"number of runs 0 out": func(c *Config) { c.Runs = 0 },
		"scale 0 out":          func(c *Config) { c.Scale = 0 },
		"scale NaN out":        func(c *Config) { c.Scale = math.NaN() },
	} {
		bad := good
		change(&bad)
		if err := bad.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", want, err)
		}
	}
	t.Setenv("PATH", "")
	if err := good.Check(); err == nil || !strings.Contains(err.Error(), "no rsync") {
		t.Errorf("without rsync: %v", err)
	}
}

func TestAccount(t *testing.T) {
	live := account{Live: true, Phases: []phase{{"files", 100}, {"files", 5}, {"send", 2}}}
	live.Passes = []pass{{MS: 100}, {MS: 5}, {MS: 1, Entries: 7, Frozen: true}, {MS: 2, Frozen: true}}
	second, err := live.second()
	frozen, err2 := live.frozen()
	if second != 5 || frozen.MS != 1 || frozen.Entries != 7 || live.files() != 105 || err != nil || err2 != nil {
		t.Errorf("second %g, frozen %+v, %v, %v", second, frozen, err, err2)
	}
	if _, err := (account{Phases: []phase{{"files", 1}}}).frozen(); err == nil {
		t.Error("a stopped container has a frozen pass")
	}
}

func TestParse(t *testing.T) {
	const text = "\nTotal bytes sent: 1,234\nTotal bytes received: 66\n\nsent 1,234 bytes\nmicroseconds: 1500\n"
	if r, err := parseStats(text); err != nil || r.wire != 1300 || r.ms != 1.5 {
		t.Errorf("%+v, %v", r, err)
	}
	if _, err := parseStats("Total bytes sent: 1\n"); err == nil {
		t.Error("half of it is taken")
	}
	const dev = "Inter-| Receive\n face |bytes\n    lo: 7 0 0 0 0 0 0 0 7 0\n  eth0: 10 0 0 0 0 0 0 0 32 0 0\n"
	if n, err := interfaceBytes(dev, "eth0"); err != nil || n != 42 {
		t.Errorf("%d, %v", n, err)
	}
	if _, err := interfaceBytes(dev, "eth1"); err == nil {
		t.Error("no interface, no error")
	}
	if n := highWater([]byte("VmPeak:\t 9 kB\nVmHWM:\t     12 kB\n")); n != 12<<10 {
		t.Errorf("%d", n)
	}
}

// generated is a small tree, made twice the same.
func generated(t *testing.T) (tree, string) {
	made := tree{files: 2 * hotFiles, limit: smallLimit}
	dirs := [2]string{t.TempDir(), t.TempDir()}
	for _, dir := range dirs {
		if err := made.make(t.Context(), dir, os.Getuid(), os.Getgid()); err != nil {
			t.Fatal(err)
		}
	}
	files, err := regular(dirs[0])
	if err != nil || len(files) != made.files {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for n := range made.files {
		a, err := os.ReadFile(filepath.Join(dirs[0], made.path(n)))
		b, err2 := os.ReadFile(filepath.Join(dirs[1], made.path(n)))
		if err != nil || err2 != nil || !bytes.Equal(a, b) || len(a) > smallLimit {
			t.Fatalf("file %d: %v, %v", n, err, err2)
		}
	}
	return made, dirs[0]
}

func TestRewriter(t *testing.T) {
	made, dir := generated(t)
	r := Rewriter{Dir: dir, Files: made.files, Every: time.Hour}
	if _, err := r.rounds(); err == nil {
		t.Error("files that were never rewritten are of a round")
	}
	for _, n := range []uint64{1, 7} {
		if err := r.round(n); err != nil {
			t.Fatal(err)
		}
		if rounds, err := r.rounds(); err != nil || len(rounds) != hotFiles || rounds[0] != n || rounds[hotFiles-1] != n {
			t.Errorf("%v, %v", rounds, err)
		}
	}
	half := append(roundContent(7)[:hotSize/2:hotSize/2], roundContent(8)[hotSize/2:]...)
	if err := os.WriteFile(filepath.Join(dir, r.hot()[3]), half, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := r.rounds(); err == nil {
		t.Error("half a round is taken")
	}
}

func TestSame(t *testing.T) {
	made, dir := generated(t)
	copied := t.TempDir()
	if out, err := command(t, "cp -r "+dir+"/. "+copied); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := same(t.Context(), dir, copied, nil); err == nil {
		t.Error("other modes and times are the same")
	}
	sync := "rsync -a " + dir + "/ " + copied + "/"
	if out, err := command(t, sync); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := same(t.Context(), dir, copied, nil); err != nil {
		t.Error(err)
	}
	r := Rewriter{Dir: copied, Files: made.files}
	if err := r.round(1); err != nil {
		t.Fatal(err)
	}
	if err := same(t.Context(), dir, copied, nil); err == nil {
		t.Error("rewritten files are the same")
	}
	if err := same(t.Context(), dir, copied, r.hot()); err != nil {
		t.Errorf("but for those rewritten: %v", err)
	}
}

// differing counts the bytes in which files differ.
func differing(a, b []byte) (n int) {
	for i := range a {
		if a[i] != b[i] {
			n++
		}
	}
	return n
}

func TestChanges(t *testing.T) {
	path := filepath.Join(t.TempDir(), "big")
	uid, gid := os.Getuid(), os.Getgid()
	if err := writeRandom(path, 400*blockSize, uid, gid); err != nil {
		t.Fatal(err)
	}
	before, _ := os.ReadFile(path)
	if err := rewriteBlocks(path, random(ofChange, 1)); err != nil {
		t.Fatal(err)
	}
	after, _ := os.ReadFile(path)
	if n := differing(before, after); len(after) != len(before) || n < 4*blockSize*98/100 || n > 4*blockSize {
		t.Errorf("%d of %d bytes differ", n, len(after))
	}
	if err := insert(path, 1000, random(ofChange, 2), uid, gid); err != nil {
		t.Fatal(err)
	}
	if longer, _ := os.ReadFile(path); len(longer) != len(after)+1000 || !bytes.Equal(longer[1000:], after) {
		t.Errorf("%d bytes after the insertion", len(longer))
	}
}

func TestChangePercent(t *testing.T) {
	made, dir := generated(t)
	var before [][]byte
	for n := range made.files {
		b, _ := os.ReadFile(filepath.Join(dir, made.path(n)))
		before = append(before, b)
	}
	if err := changePercent(dir, random(ofChange, 1)); err != nil {
		t.Fatal(err)
	}
	all, changed := 0, 0
	for n := range made.files {
		b, _ := os.ReadFile(filepath.Join(dir, made.path(n)))
		if all += len(b); len(b) != len(before[n]) {
			t.Fatalf("file %d has another size", n)
		}
		changed += differing(before[n], b)
	}
	if changed < all/100*98/100 || changed > all/100 {
		t.Errorf("%d of %d bytes differ", changed, all)
	}
}

func command(t *testing.T, line string) ([]byte, error) {
	words := strings.Fields(line)
	return exec.CommandContext(t.Context(), words[0], words[1:]...).CombinedOutput()
}
