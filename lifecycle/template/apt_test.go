package template

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"
)

func TestParseSources(t *testing.T) {
	for _, c := range []struct {
		name, text string
		parse      func(string) []aptSource
		want       []aptSource
	}{
		{"one line", "deb http://a.example.org/debian bookworm main contrib\n", parseOneLine,
			[]aptSource{{"http://a.example.org/debian", []string{"bookworm"}, []string{"main", "contrib"}}}},
		{"options", "deb [ arch=amd64 signed-by=/k.gpg ]  http://a.example.org/d  sid\tmain # mine\n", parseOneLine,
			[]aptSource{{"http://a.example.org/d", []string{"sid"}, []string{"main"}}}},
		{"source and comment", "deb-src http://a.example.org/d sid main\n# deb http://a.example.org/d sid main\n", parseOneLine, nil},
		{"open bracket", "deb [arch=amd64 http://a.example.org/d sid main\n", parseOneLine, nil},
		{"flat", "deb http://a.example.org/d ./\n", parseOneLine, nil},
		{"deb822", "# top\nTypes: deb deb-src\nURIs: http://a.example.org/d http://b.example.org/d\n# inside\nSuites: bookworm\n bookworm-updates\nComponents: main\nSigned-By:\n -----BEGIN\n .\n URIs: x\n\n", parseDeb822,
			[]aptSource{
				{"http://a.example.org/d", []string{"bookworm", "bookworm-updates"}, []string{"main"}},
				{"http://b.example.org/d", []string{"bookworm", "bookworm-updates"}, []string{"main"}},
			}},
		{"two stanzas, no newline at the end", "types: deb\nuris: http://a.example.org/d\nsuites: s\ncomponents: main\n\n\nTypes: deb\nURIs: http://b.example.org/d\nSuites: s\nComponents: main", parseDeb822,
			[]aptSource{{"http://a.example.org/d", []string{"s"}, []string{"main"}}, {"http://b.example.org/d", []string{"s"}, []string{"main"}}}},
		{"disabled", "Enabled: no\nTypes: deb\nURIs: http://a.example.org/d\nSuites: s\nComponents: main\n", parseDeb822, nil},
		{"sources only", "Types: deb-src\nURIs: http://a.example.org/d\nSuites: s\nComponents: main\n", parseDeb822, nil},
		{"flat stanza", "Types: deb\nURIs: http://a.example.org/d\nSuites: ./\n", parseDeb822, nil},
		{"continuation first", " main\nTypes: deb\n", parseDeb822, nil},
	} {
		if got := c.parse(c.text); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}

func TestReadSources(t *testing.T) {
	etc := t.TempDir()
	if got, err := readSources(etc); err != nil || got != nil {
		t.Errorf("no files: %v, %v", got, err)
	}
	put(t, filepath.Join(etc, "sources.list"), "deb http://a.example.org/d s main\n")
	put(t, filepath.Join(etc, "sources.list.d/b.list"), "deb http://b.example.org/d s main\n")
	put(t, filepath.Join(etc, "sources.list.d/c.sources"), "Types: deb\nURIs: http://c.example.org/d\nSuites: s\nComponents: main\n")
	put(t, filepath.Join(etc, "sources.list.d/d.list.disabled"), "deb http://d.example.org/d s main\n")
	got, err := readSources(etc)
	if err != nil || len(got) != 3 || got[2].URI != "http://c.example.org/d" {
		t.Errorf("%+v, %v", got, err)
	}
}

func put(t *testing.T, file, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestFindArchive(t *testing.T) {
	const (
		debian   = "deb http://a.example.org/debian/ bookworm main\ndeb http://a.example.org/debian bookworm-updates main\n"
		security = "deb http://b.example.org/debian-security bookworm-security main\n"
		vendor   = "deb https://apt.vendor.example.com bookworm main\n"
	)
	for _, c := range []struct {
		name, sources, own, codename string
		want                         archive
	}{
		{"own release", debian + security, "bookworm", "bookworm",
			archive{"http://a.example.org/debian", "http://a.example.org/debian", "http://b.example.org/debian-security"}},
		{"another release", debian + security, "bookworm", "trixie",
			archive{"http://a.example.org/debian", "http://a.example.org/debian", "http://b.example.org/debian-security"}},
		{"vendor first", vendor + debian, "bookworm", "bookworm",
			archive{main: "http://a.example.org/debian", updates: "http://a.example.org/debian"}},
		{"wanted release has its own source", debian + "deb http://t.example.org/debian trixie main\n", "bookworm", "trixie",
			archive{main: "http://t.example.org/debian", updates: "http://a.example.org/debian"}},
		{"alias", "deb http://a.example.org/debian stable main\n", "bookworm", "trixie", archive{main: "http://a.example.org/debian"}},
		{"not debian", "deb http://a.example.org/ubuntu stable main\n", "", "trixie", archive{}},
		{"not debian but with a source", "deb http://a.example.org/debian trixie main\n", "", "trixie", archive{main: "http://a.example.org/debian"}},
		{"unusable schemes", "deb cdrom:[x]/ bookworm main\ndeb file:/srv/debian bookworm main\n", "bookworm", "bookworm", archive{}},
		{"no main", "deb http://a.example.org/debian bookworm contrib\n", "bookworm", "bookworm", archive{}},
	} {
		got, ok := findArchive(parseOneLine(c.sources), c.own, c.codename)
		if got != c.want || ok != (c.want.main != "") {
			t.Errorf("%s: %+v, %v", c.name, got, ok)
		}
	}
}

func TestArchiveLines(t *testing.T) {
	a := archive{main: "http://a.example.org/debian", security: "http://b.example.org/s"}
	want := "deb http://a.example.org/debian trixie main\ndeb http://b.example.org/s trixie-security main\n"
	if got := a.lines("trixie"); got != want {
		t.Errorf("lines = %q", got)
	}
}

func TestCodenameOf(t *testing.T) {
	for text, want := range map[string]string{
		"ID=debian\nVERSION_CODENAME=bookworm\n":            "bookworm",
		"VERSION_CODENAME=\"trixie\"\nID='debian'\n":        "trixie",
		"ID=ubuntu\nID_LIKE=debian\nVERSION_CODENAME=x\n":   "",
		"PRETTY_NAME=\"Debian GNU/Linux sid\"\nID=debian\n": "",
	} {
		if got := codenameOf(text); got != want {
			t.Errorf("codenameOf(%q) = %q, want %q", text, got, want)
		}
	}
}
