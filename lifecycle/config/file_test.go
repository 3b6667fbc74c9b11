package config_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/lifecycle/config"
)

// openvz is a container's config as OpenVZ's tools write it.
const openvz = `# Copyright of somebody
#
# UBC parameters (in form of barrier:limit)
PHYSPAGES="0:256M"

  SWAPPAGES = "not an assignment"
VE_ROOT="/vz/root/$VEID"
VE_PRIVATE='/vz/private/$VEID' # where the files are
	ONBOOT=yes
IP_ADDRESS="10.0.0.2 fd00::2"
export PATH
lower="case"
NAME=web
NAME="db"
EMPTY=
QUOTED=""
`

func parse(t *testing.T, text string) *config.File {
	t.Helper()
	f, err := config.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestParseValues(t *testing.T) {
	for _, c := range []struct{ line, want string }{
		{`K="v"`, "v"},
		{`K='v'`, "v"},
		{`K=v`, "v"},
		{`K=`, ""},
		{`K=""`, ""},
		{`K="a b"`, "a b"},
		{`K=a b`, "a"},
		{"K=a\t# why", "a"},
		{`K="a # b" # why`, "a # b"},
		{`K="it's"`, "it's"},
		{`K='a "b"'`, `a "b"`},
		{`K="a=b"`, "a=b"},
		{"  K=\"v\"  ", "v"},
		{"K=\"v\"\r", "v"},
		{`K="$VEID"`, "$VEID"},
		{"K=\"\xff\"", "\xff"},
	} {
		if got, ok := parse(t, c.line).Get("K"); got != c.want || !ok {
			t.Errorf("%q: value %q, set %v, want %q", c.line, got, ok, c.want)
		}
	}
}

func TestParseRefusals(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{`K="v`, "config line 1, K: missing closing quote"},
		{"A=1\nK='v", "config line 2, K: missing closing quote"},
		{`K="v"w`, `config line 1, K: text "w" after the value`},
		{strings.Repeat("#", 256<<10+1), "config of 262145 bytes is over the limit of 262144"},
	} {
		_, err := config.Parse([]byte(c.text))
		if err == nil || err.Error() != c.want || fault.KindOf(err) != fault.Config {
			t.Errorf("%.20q: error %v of kind %d, want %q", c.text, err, fault.KindOf(err), c.want)
		}
	}
	if _, err := config.Parse([]byte(strings.Repeat("#", 256<<10))); err != nil {
		t.Errorf("file of the greatest size: %v", err)
	}
}

func TestParseKeepsEveryLine(t *testing.T) {
	for _, text := range []string{openvz, "", "#\n", "\n\n", "K=1\n\n\n", "\tx\r\ny \n", "\xff\x00\n"} {
		if diff := cmp.Diff(text, string(parse(t, text).Bytes())); diff != "" {
			t.Errorf("%q changed:\n%s", text, diff)
		}
	}
	if got := string(parse(t, "K=1").Bytes()); got != "K=1\n" {
		t.Errorf("last line without an end: %q", got)
	}
}

func TestGet(t *testing.T) {
	f := parse(t, openvz)
	for key, want := range map[string]string{
		"PHYSPAGES": "0:256M", "VE_ROOT": "/vz/root/$VEID", "VE_PRIVATE": "/vz/private/$VEID", "ONBOOT": "yes",
		"IP_ADDRESS": "10.0.0.2 fd00::2", "NAME": "db", "EMPTY": "", "QUOTED": "",
	} {
		if got, ok := f.Get(key); got != want || !ok {
			t.Errorf("%s is %q, set %v, want %q", key, got, ok, want)
		}
	}
	for _, key := range []string{"SWAPPAGES", "lower", "PATH", "MISSING"} {
		if got, ok := f.Get(key); ok {
			t.Errorf("%s is set, to %q", key, got)
		}
	}
	if _, ok := (*config.File)(nil).Get("NAME"); ok {
		t.Error("a nil file has a NAME")
	}
}

func TestSetKeepsPlaceAndNeighbours(t *testing.T) {
	f := parse(t, "# top\nNAME=web\n# middle\nNAME=\"db\"\nONBOOT=yes\n")
	for _, kv := range [][2]string{{"NAME", "shop"}, {"IP_ADDRESS", "10.0.0.2"}, {"VE_ROOT", "/vz/$VEID"}} {
		if err := f.Set(kv[0], kv[1]); err != nil {
			t.Fatal(err)
		}
	}
	want := "# top\nNAME=\"shop\"\n# middle\nONBOOT=yes\nIP_ADDRESS=\"10.0.0.2\"\nVE_ROOT=\"/vz/$VEID\"\n"
	if diff := cmp.Diff(want, string(f.Bytes())); diff != "" {
		t.Error(diff)
	}
}

func TestSetRefusesWhatAShellWouldInterpret(t *testing.T) {
	f := parse(t, "K=1\n")
	for _, value := range []string{`a"b`, "a`id`", `a\b`, "a\nb", "a\rb", "a\x00b"} {
		if err := f.Set("K", value); fault.KindOf(err) != fault.BadValue {
			t.Errorf("Set(%q): %v", value, err)
		}
	}
	if got := string(f.Bytes()); got != "K=1\n" {
		t.Errorf("a refused Set left %q", got)
	}
}

func TestUnset(t *testing.T) {
	f := parse(t, "A=1\nK=1\n#\nK=2\nB=2\n")
	f.Unset("K")
	f.Unset("MISSING")
	if got := string(f.Bytes()); got != "A=1\n#\nB=2\n" {
		t.Errorf("left %q", got)
	}
}

func TestSetParsesBack(t *testing.T) {
	for _, value := range []string{"", " ", "a b", "#", "'", "$VEID", "a=b", "é", "\xff", strings.Repeat("x", 10000)} {
		var f config.File
		if err := f.Set("K", value); err != nil {
			t.Fatal(err)
		}
		if got, _ := parse(t, string(f.Bytes())).Get("K"); got != value {
			t.Errorf("%q came back as %q", value, got)
		}
	}
}

func TestSaveAndLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "101.conf")
	if _, err := config.Load(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing file: %v", err)
	}
	if err := parse(t, openvz).Save(path); err != nil {
		t.Fatal(err)
	}
	f, err := config.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(openvz, string(f.Bytes())); diff != "" {
		t.Error(diff)
	}
	if _, err := config.Load(filepath.Dir(path)); fault.KindOf(err) != fault.Config {
		t.Errorf("load a directory: %v", err)
	}
	if err := os.WriteFile(path, []byte(`K="`), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := config.Load(path); fault.KindOf(err) != fault.Config || !strings.Contains(err.Error(), path) {
		t.Errorf("load a broken file: %v", err)
	}
}

// A reader must see the old text or the new one, never a part or nothing.
func TestSaveIsAtomic(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "101.conf")
	texts := map[string]bool{}
	var files []*config.File
	for _, size := range []int{10, 100_000} {
		f := parse(t, strings.Repeat("#", size)+"\n")
		texts[string(f.Bytes())] = true
		files = append(files, f)
	}
	if err := files[0].Save(path); err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() {
		defer close(done)
		for i := range 50 {
			if err := files[i%2].Save(path); err != nil {
				done <- err
				return
			}
		}
	}()
	for running := true; running; {
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			running = false
		default:
		}
		text, err := os.ReadFile(path)
		if err != nil || !texts[string(text)] {
			t.Fatalf("read %d bytes, %v", len(text), err)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("left in the directory: %v, %v", left, err)
	}
}

func TestSaveFails(t *testing.T) {
	if err := parse(t, "K=1\n").Save(filepath.Join(t.TempDir(), "no", "such", "dir")); fault.KindOf(err) != fault.Config {
		t.Errorf("save into a missing directory: %v", err)
	}
}

// FuzzParse checks that what Parse takes says the same after it was written,
// and that a Set is seen and changes nothing else.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{openvz, "", "\n", "K=\"", "K='a' b", "K=\r\nK=#", "\x00=\xff", "A=a#b\nB= c"} {
		f.Add([]byte(seed))
	}
	keys := []string{"K", "A", "B", "NAME", "VE_ROOT"}
	f.Fuzz(func(t *testing.T, text []byte) {
		first, err := config.Parse(text)
		if err != nil {
			return
		}
		second, err := config.Parse(first.Bytes())
		if err != nil {
			if len(text) == 256<<10 { // and one more line end
				return
			}
			t.Fatalf("own text is refused: %v", err)
		}
		if diff := cmp.Diff(first.Bytes(), second.Bytes()); diff != "" {
			t.Fatal(diff)
		}
		if err := second.Set("SET", "new"); err != nil {
			t.Fatal(err)
		}
		for _, key := range keys {
			a, aok := first.Get(key)
			b, bok := second.Get(key)
			if a != b || aok != bok {
				t.Fatalf("%s was %q, %v and is %q, %v", key, a, aok, b, bok)
			}
		}
		if v, ok := second.Get("SET"); v != "new" || !ok {
			t.Fatalf("SET is %q, %v", v, ok)
		}
	})
}
