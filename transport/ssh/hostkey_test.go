package ssh

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vzkit/vzkit/internal/fault"
)

// lastOfHint is the known_hosts line that a hint ends with.
func lastOfHint(t *testing.T, err error) string {
	t.Helper()
	_, line, ok := strings.Cut(hint(err), "known_hosts: ")
	if !ok {
		t.Fatalf("no line in hint %q", hint(err))
	}
	return line
}

func TestUnknownHostKey(t *testing.T) {
	s := startServer(t)
	c := s.newClient(t)
	other := "[127.0.0.1]:1 " + s.hostKey + "\n"
	write(t, c.known, other)
	err := c.refused(t, Options{})
	if fault.KindOf(err) != fault.Connect || !strings.Contains(err.Error(), "not known") {
		t.Fatalf("err = %v", err)
	}
	line := lastOfHint(t, err)
	if line+"\n" != s.knownLine() {
		t.Errorf("line %q", line)
	}
	if b, _ := os.ReadFile(c.known); string(b) != other {
		t.Error("known_hosts was changed")
	}
	appendTo(t, c.known, line+"\n")
	c.dial(t, Options{})
}

func TestChangedHostKey(t *testing.T) {
	s := startServer(t)
	for _, kind := range []string{"ed25519", "ecdsa"} {
		for _, policy := range []string{"yes", "no", "accept-new"} {
			c := s.newClient(t, "StrictHostKeyChecking "+policy)
			fake := publicPart(t, keygen(t, filepath.Join(t.TempDir(), "fake"), kind, ""))
			write(t, c.known, "# comment\n\n"+strings.Replace(s.knownLine(), s.hostKey, fake, 1))
			err := c.refused(t, Options{})
			if fault.KindOf(err) != fault.Connect || !strings.Contains(err.Error(), "differs from "+c.known+":3") {
				t.Errorf("%s, %s: %v", kind, policy, err)
			}
			if !strings.Contains(hint(err), strings.TrimSpace(s.knownLine())) {
				t.Errorf("%s, %s: hint %q", kind, policy, hint(err))
			}
		}
	}
}

func TestRevokedHostKey(t *testing.T) {
	s := startServer(t)
	c := s.newClient(t, "StrictHostKeyChecking no")
	appendTo(t, c.known, "@revoked * "+s.hostKey+"\n")
	if err := c.refused(t, Options{}); !strings.Contains(err.Error(), "revoked by "+c.known+":2") {
		t.Errorf("err = %v", err)
	}
	lines, err := c.resolve(t, Options{}).KnownHostsLines()
	if err != nil || !strings.Contains(string(lines), "@revoked [127.0.0.1]") {
		t.Errorf("lines %q, %v", lines, err)
	}
}

func TestAcceptNewHostKey(t *testing.T) {
	s := startServer(t)
	for _, more := range []string{"HashKnownHosts no", "HashKnownHosts yes"} {
		c := s.newClient(t, "StrictHostKeyChecking accept-new", more)
		write(t, c.known, "unfinished "+s.hostKey) // no newline
		c.dial(t, Options{})
		b, err := os.ReadFile(c.known)
		if err != nil {
			t.Fatal(err)
		}
		hashed := strings.Contains(string(b), "\n|1|")
		if strings.Count(string(b), "\n") != 2 || hashed != strings.HasSuffix(more, "yes") {
			t.Errorf("%s: known_hosts %q", more, b)
		}
		// OpenSSH's own tool has to find the entry.
		command(t, "ssh-keygen", "-F", strings.Fields(s.knownLine())[0], "-f", c.known)
		appendTo(t, c.config, "Host box\n")
		c.dial(t, Options{})
		if again, _ := os.ReadFile(c.known); string(again) != string(b) {
			t.Error("the key was added twice")
		}
	}
	c := s.newClient(t, "StrictHostKeyChecking no", "UserKnownHostsFile "+filepath.Join(t.TempDir(), "new", "kh"))
	c.dial(t, Options{})
	c = s.newClient(t, "StrictHostKeyChecking no", "UserKnownHostsFile none")
	c.dial(t, Options{})
}

// TestNewKeyExchange has the server exchange keys again and again.
func TestNewKeyExchange(t *testing.T) {
	s := startServer(t, "RekeyLimit 1M")
	c := s.newClient(t, "StrictHostKeyChecking accept-new")
	write(t, c.known, "")
	session := start(t, c.dial(t, Options{}), SessionOptions{}, "head", "-c", fmt.Sprint(16<<20), "/dev/zero")
	if n, err := io.Copy(io.Discard, session); err != nil || n != 16<<20 {
		t.Errorf("%d bytes, %v", n, err)
	}
	if b, _ := os.ReadFile(c.known); string(b) != s.knownLine() {
		t.Errorf("known_hosts %q", b)
	}
}

func TestKnownHostsForms(t *testing.T) {
	s := startServer(t)
	for name, c := range map[string]struct {
		lines   string
		setting string
	}{
		"bare name":    {"127.0.0.1 KEY\n", "LogLevel INFO"},
		"wildcard":     {"127.0.* KEY\n", "LogLevel INFO"},
		"list":         {"a,[127.0.0.1]:PORT,b KEY\n", "LogLevel INFO"},
		"alias":        {"alias KEY\n", "HostKeyAlias alias"},
		"broken lines": {"nonsense\n@what x KEY\n|1|x KEY\n127.0.0.1 ssh-ed25519 AAAA\n[127.0.0.1]:PORT KEY\n", "LogLevel INFO"},
		"long line":    {"# " + strings.Repeat("x", 1<<17) + "\n[127.0.0.1]:PORT KEY comment\n", "LogLevel INFO"},
	} {
		client := s.newClient(t, c.setting)
		port := strings.TrimSuffix(strings.TrimPrefix(strings.Fields(s.knownLine())[0], "[127.0.0.1]:"), " ")
		write(t, client.known, strings.NewReplacer("KEY", s.hostKey, "PORT", port).Replace(c.lines))
		conn, err := Dial(context.Background(), client.resolve(t, Options{}))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		conn.Close()
	}
}

func TestHostCertificate(t *testing.T) {
	ca := keygen(t, filepath.Join(t.TempDir(), "ca"), "ed25519", "")
	host := keygen(t, filepath.Join(t.TempDir(), "host2"), "ecdsa", "")
	command(t, "ssh-keygen", "-q", "-s", ca, "-I", "x", "-h", "-n", "127.0.0.1", host+".pub")
	s := startServer(t, "HostKey "+host, "HostCertificate "+host+"-cert.pub")
	c := s.newClient(t)
	write(t, c.known, "@cert-authority * "+publicPart(t, ca)+"\n")
	c.dial(t, Options{})

	plain := startServer(t)
	p := plain.newClient(t)
	write(t, p.known, "@cert-authority * "+publicPart(t, ca)+"\n")
	if err := p.refused(t, Options{}); !strings.Contains(err.Error(), "not known") {
		t.Errorf("host without certificate: %v", err)
	}
}

// TestKnownHostsLines hands what one user knows to another who knows nothing.
func TestKnownHostsLines(t *testing.T) {
	s := startServer(t)
	for _, setting := range []string{"LogLevel INFO", "HostKeyAlias alias"} {
		knows := s.newClient(t, setting)
		appendTo(t, knows.known, "alias "+s.hostKey+"\nother.host "+s.hostKey+"\n")
		command(t, "ssh-keygen", "-q", "-H", "-f", knows.known)
		lines, err := knows.resolve(t, Options{}).KnownHostsLines()
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(lines), "|1|") || strings.Count(string(lines), "\n") != 1 {
			t.Errorf("%s: lines %q", setting, lines)
		}
		nobody := s.newClient(t)
		write(t, nobody.known, "")
		nobody.dial(t, Options{KnownHosts: lines})
	}
	nobody := s.newClient(t)
	write(t, nobody.known, "other.host "+s.hostKey+"\n")
	if lines, err := nobody.resolve(t, Options{}).KnownHostsLines(); err != nil || len(lines) != 0 {
		t.Errorf("unknown host: %q, %v", lines, err)
	}
}
