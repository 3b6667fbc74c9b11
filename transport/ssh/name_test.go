package ssh

import (
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/vzkit/vzkit/internal/fault"
)

func hint(err error) string { return fault.HintOf(err) }

func TestParseName(t *testing.T) {
	for _, c := range []struct {
		in   string
		want name
	}{
		{"alpha", name{"", "alpha", 0}},
		{"root@alpha", name{"root", "alpha", 0}},
		{"DOM\\u@me@alpha", name{"DOM\\u@me", "alpha", 0}},
		{"::1", name{"", "::1", 0}},
		{"root@[fe80::1%eth0]", name{"root", "fe80::1%eth0", 0}},
		{"[::1]:2222", name{"", "::1", 2222}},
		{"ssh://alpha", name{"", "alpha", 0}},
		{"ssh://u%40x@alpha:2222/", name{"u@x", "alpha", 2222}},
		{"ssh://u;fingerprint=x@[::1]:22", name{"u", "::1", 22}},
	} {
		got, err := parseName(c.in)
		if err != nil || got != c.want {
			t.Errorf("%q: %+v, %v", c.in, got, err)
		}
	}
}

func TestNameRefused(t *testing.T) {
	for _, in := range []string{
		"", "-oProxyCommand=x", "@alpha", "root@", "root@-x", "a b", "a\nb", "a\x00", "a;b", "$(id)", "`id`",
		"-l@alpha", "o'x@alpha", "ssh://", "ssh://u:secret@alpha", "ssh://alpha:0", "ssh://alpha:99999", "ssh://alpha/path",
		"ssh://alpha?x", "[::1", "[::1]x", "[::1]:x", strings.Repeat("a", maxName+1), "u\\@alpha",
	} {
		_, err := Resolve(in, Options{ConfigFile: "none"})
		if fault.KindOf(err) != fault.Usage || hint(err) == "" {
			t.Errorf("%q: %v", in, err)
		}
	}
	for _, o := range []Options{{User: "-x"}, {User: "a b"}, {Port: -1}, {Port: 65536}, {IdentityFiles: []string{""}}} {
		o.ConfigFile = "none"
		if _, err := Resolve("alpha", o); fault.KindOf(err) != fault.Usage {
			t.Errorf("%+v: %v", o, err)
		}
	}
}

func FuzzParseName(f *testing.F) {
	for _, s := range []string{"root@alpha", "ssh://u@[::1]:22", "[::1]:2222", "-x", "a@b@c"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := parseName(s)
		if err == nil && (n.host == "" || n.host[0] == '-' || strings.ContainsAny(n.host+n.user, "\n\"`;|&<>")) {
			t.Errorf("%q: %+v", s, n)
		}
	})
}

var weirdArgs = []string{
	"", " ", "a b", "'", `"`, `\`, `\\'`, "$HOME", "`id`", "$(id)", "*", "~", "#x", "a\nb", "\t", "-n", "--", "a=b", "!", "\x01\xff", "é",
	strings.Repeat("'", 50), "&& false", "|", ">x", "{a,b}", "[a]",
}

func TestQuoteByShell(t *testing.T) {
	line, err := quote(append([]string{"printf", `%s\0`}, weirdArgs...))
	if err != nil {
		t.Fatal(err)
	}
	for _, shell := range []string{"sh", "bash"} {
		out, err := exec.Command(shell, "-c", line).Output()
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00"); !slices.Equal(got, weirdArgs) {
			t.Errorf("%s: got %q", shell, got)
		}
	}
}

func TestQuoteRefuses(t *testing.T) {
	for _, argv := range [][]string{nil, {""}, {"a", "b\x00c"}} {
		if _, err := quote(argv); fault.KindOf(err) != fault.Usage {
			t.Errorf("%q: %v", argv, err)
		}
	}
	if line, _ := quote([]string{"A=b", "c=d"}); line != "'A=b' c=d" {
		t.Errorf("assignment as command: %s", line)
	}
}
