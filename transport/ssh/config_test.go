package ssh

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vzkit/vzkit/internal/fault"
)

// oracle is what `ssh -G` says, by keyword.
func oracle(t *testing.T, config, host string) map[string]string {
	t.Helper()
	out, err := exec.Command("ssh", "-T", "-G", "-F", config, host).Output()
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]string{}
	for line := range strings.Lines(string(out)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if values[key] == "" {
			values[key] = value
		}
	}
	return values
}

var snippets = []struct{ config, hosts string }{
	{"", "alpha root@alpha ssh://u@alpha:2200 ALPHA ::1"},
	{"Host alpha\n HostName 10.0.0.9\n Port 2222\n User bob\n", "alpha beta eve@alpha ssh://alpha:1"},
	{"Host a* !alpha\n Port 33\nHost *\n User any\n Port 44\n", "alpha axe beta"},
	{"Port 99\nHost alpha\n Port 22\n", "alpha"},
	{"host=alpha\n hostname = \"beta.example\"\n\tport=7\n# comment\n", "alpha"},
	{"Host *.lab\n HostName %h.Example.ORG\n User u.x\n", "n1.lab"},
	{"Host alpha beta gamma?\n Port 5\n", "beta gamma1 gamma gamma12"},
	{"Match host alpha\n Port 6\nMatch all\n User fallback\n", "alpha beta"},
	{"Include sub.conf\nHost *\n Port 70\n", "inc other"},
	{"Host alpha\n Include sub.conf\n", "alpha inc"},
}

// knownDifference is where the library is wrong: its ? in a pattern matches no
// character as well as one.
const knownDifference = "gamma by library"

// TestAgreesWithOpenSSH checks both ways to resolve against ssh itself.
func TestAgreesWithOpenSSH(t *testing.T) {
	for i, c := range snippets {
		dir := t.TempDir()
		config := filepath.Join(dir, "config")
		write(t, filepath.Join(dir, "sub.conf"), "Host inc alpha\n HostName 10.1.1.1\n User inc\n")
		write(t, config, strings.ReplaceAll(c.config, "sub.conf", filepath.Join(dir, "sub.conf")))
		for _, host := range strings.Fields(c.hosts) {
			want := oracle(t, config, host)
			for _, way := range []string{"ssh -G", "library"} {
				got, err := resolveBy(t, way, host, Options{ConfigFile: config})
				if err != nil {
					t.Errorf("snippet %d, %s by %s: %v", i, host, way, err)
					continue
				}
				if host+" by "+way == knownDifference {
					continue
				}
				if got.Host != want["hostname"] || got.User != want["user"] || strconv.Itoa(got.Port) != want["port"] {
					t.Errorf("snippet %d, %s by %s: %s, want %s@%s:%s", i, host, way, got, want["user"], want["hostname"], want["port"])
				}
			}
		}
	}
}

// resolveBy resolves with or without an OpenSSH client on PATH.
func resolveBy(t *testing.T, way, host string, o Options) (*Target, error) {
	t.Helper()
	if way == "library" {
		path := os.Getenv("PATH")
		os.Setenv("PATH", "")
		defer os.Setenv("PATH", path)
	}
	return Resolve(host, o)
}

func TestEverySetting(t *testing.T) {
	config := filepath.Join(t.TempDir(), "config")
	t.Setenv("SSH_TEST_DIR", "/env")
	write(t, config, `
Host box
  HostName Box.Example
  Port 2022
  User bob
  AddressFamily inet6
  ConnectTimeout 7
  ServerAliveInterval 15
  ServerAliveCountMax 4
  HostKeyAlias alias
  UserKnownHostsFile ~/kh_%h "/two" ${SSH_TEST_DIR}/kh
  GlobalKnownHostsFile none
  StrictHostKeyChecking accept-new
  HashKnownHosts yes
  IdentitiesOnly yes
  IdentityAgent /agent/%u
  IdentityFile ~/k_%r_%p_%n
  IdentityFile "/with space/%%d"
  CertificateFile /cert
  ForwardAgent yes
  ProxyCommand connect %h %p %r %n %%
`)
	me, err := whoAmI()
	if err != nil {
		t.Fatal(err)
	}
	for _, way := range []string{"ssh -G", "library"} {
		x, err := resolveBy(t, way, "box", Options{ConfigFile: config, IdentityFiles: []string{"/first%d"}})
		if err != nil {
			t.Fatalf("%s: %v", way, err)
		}
		for _, c := range []struct{ what, got, want string }{
			{"string", x.String(), "bob@box.example:2022"},
			{"network", x.network, "tcp6"},
			{"times", x.timeout.String() + x.keepAlive.String() + strconv.Itoa(x.keepAliveMax), "7s15s4"},
			{"known_hosts", strings.Join(x.userFiles, " "), me.home + "/kh_box.example /two /env/kh"},
			{"global", strings.Join(x.globalFiles, " "), ""},
			{"key names", strings.Join(x.keyAddrs(), " "), "alias:22"},
			{"agent", x.agentSocket, "/agent/" + me.user},
			{"certificate", strings.Join(x.certFiles, " "), "/cert"},
			{"proxy", x.proxyCommand, "connect box.example 2022 bob box %"},
		} {
			if c.got != c.want {
				t.Errorf("%s: %s %q, want %q", way, c.what, c.got, c.want)
			}
		}
		keys := []identityFile{{"/first%d", false}, {me.home + "/k_bob_2022_box", false}, {"/with space/%d", false}}
		if !slices.Equal(x.identityFiles, keys) {
			t.Errorf("%s: identity files %+v", way, x.identityFiles)
		}
		if !x.addNewKeys || !x.hashNewKeys || !x.identitiesOnly || !x.forwardAgent {
			t.Errorf("%s: switches: %+v", way, x)
		}
	}
}

func TestDefaults(t *testing.T) {
	for _, way := range []string{"ssh -G", "library"} {
		x, err := resolveBy(t, way, "alpha", Options{ConfigFile: "none", AgentSocket: "/a", User: "u", Port: 5})
		if err != nil {
			t.Fatal(err)
		}
		if x.timeout != defaultTimeout || x.keepAlive != defaultKeepAlive || x.keepAliveMax != 3 || x.agentSocket != "/a" ||
			x.String() != "u@alpha:5" || x.addNewKeys || len(x.userFiles) != 2 || len(x.globalFiles) != 2 {
			t.Errorf("%s: %+v", way, x)
		}
		if !slices.ContainsFunc(x.identityFiles, func(f identityFile) bool { return f.isDefault && strings.HasSuffix(f.path, "/.ssh/id_ed25519") }) {
			t.Errorf("%s: %+v", way, x.identityFiles)
		}
	}
}

func TestConfigRefused(t *testing.T) {
	config := filepath.Join(t.TempDir(), "config")
	for _, c := range []struct{ way, text string }{
		{"ssh -G", "Bogus yes\n"},
		{"ssh -G", "Host *\n ProxyCommand x %Z\n"},
		{"ssh -G", "Host *\n ProxyUseFdpass yes\n ProxyCommand x\n"},
		{"ssh -G", "Host *\n IdentityFile ${SSH_TEST_UNSET}/x\n"},
		{"ssh -G", "Host *\n ProxyJump loop\n"},
		{"library", "Match exec true\n Port 1\n"},
		{"library", "Port many\n"},
		{"library", "StrictHostKeyChecking perhaps\n"},
		{"library", "ConnectTimeout soon\n"},
		{"library", "AddressFamily ipx\n"},
		{"library", "ProxyJump a,b c\n"},
	} {
		write(t, config, c.text)
		_, err := resolveBy(t, c.way, "alpha", Options{ConfigFile: config})
		if fault.KindOf(err) != fault.Config || hint(err) == "" {
			t.Errorf("%q by %s: %v", c.text, c.way, err)
		}
	}
	for _, way := range []string{"ssh -G", "library"} {
		if _, err := resolveBy(t, way, "alpha", Options{ConfigFile: config + ".absent"}); fault.KindOf(err) != fault.Config {
			t.Errorf("absent file by %s: %v", way, err)
		}
	}
}

func TestSame(t *testing.T) {
	config := filepath.Join(t.TempDir(), "config")
	write(t, config, "Host a b\n HostName 10.0.0.1\nHost b\n User x\nHost far\n HostName 10.0.0.1\n ProxyJump gate\n")
	of := func(name string) *Target {
		x, err := Resolve(name, Options{ConfigFile: config})
		if err != nil {
			t.Fatal(err)
		}
		return x
	}
	if !of("a").Same(of("b")) || !of("10.0.0.1").Same(of("a")) || !of("far").Same(of("u@far")) {
		t.Error("same hosts differ")
	}
	if of("a").Same(of("far")) || of("a").Same(of("[10.0.0.1]:23")) || of("a").Same(of("c")) {
		t.Error("different hosts are the same")
	}
}

func TestSeconds(t *testing.T) {
	for in, want := range map[string]time.Duration{"": 0, "none": 0, "30": 30 * time.Second, "2m": 2 * time.Minute} {
		if got, err := (settings{"k": {in}}).seconds("k"); err != nil || got != want {
			t.Errorf("%q: %v, %v", in, got, err)
		}
	}
}
