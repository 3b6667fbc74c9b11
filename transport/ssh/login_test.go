package ssh

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vzkit/vzkit/internal/fault"
)

// startAgent runs a real ssh-agent that holds keys and returns its socket.
func startAgent(t *testing.T, keys ...string) string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "agent")
	cmd := exec.Command("ssh-agent", "-D", "-a", socket)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	for {
		conn, err := net.Dial("unix", socket)
		if err == nil {
			conn.Close()
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	for _, key := range keys {
		add := exec.Command("ssh-add", "-q", key)
		add.Env = append(os.Environ(), "SSH_AUTH_SOCK="+socket)
		if out, err := add.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	return socket
}

// newKey makes a key of its own that the server accepts.
func (s *server) newKey(t *testing.T, kind, passphrase string) string {
	t.Helper()
	key := keygen(t, filepath.Join(t.TempDir(), "key"), kind, passphrase)
	s.authorize(t, key)
	return key
}

func TestKeyTypes(t *testing.T) {
	s := startServer(t)
	for _, kind := range []string{"rsa", "ecdsa", "ed25519"} {
		key := s.newKey(t, kind, "")
		s.newClient(t, "IdentityFile none").dial(t, Options{IdentityFiles: []string{key}})
	}
}

func TestUserCertificate(t *testing.T) {
	ca := keygen(t, filepath.Join(t.TempDir(), "ca"), "ed25519", "")
	s := startServer(t, "TrustedUserCAKeys "+ca+".pub")
	key := keygen(t, filepath.Join(t.TempDir(), "key"), "ecdsa", "")
	command(t, "ssh-keygen", "-q", "-s", ca, "-I", "me", "-n", "root", key+".pub")
	onlyKey := "IdentityFile " + key
	s.useNoKeys(t)
	s.newClient(t, onlyKey).dial(t, Options{})

	moved := filepath.Join(t.TempDir(), "cert.pub")
	if err := os.Rename(key+"-cert.pub", moved); err != nil {
		t.Fatal(err)
	}
	s.newClient(t, onlyKey).refused(t, Options{})
	s.newClient(t, onlyKey, "CertificateFile "+moved).dial(t, Options{})
}

// useNoKeys takes all keys out of the authorized ones.
func (s *server) useNoKeys(t *testing.T) {
	t.Helper()
	write(t, filepath.Join(s.dir, "authorized"), "")
}

func TestAgent(t *testing.T) {
	s := startServer(t)
	locked := s.newKey(t, "ed25519", "secret")
	s.useNoKeys(t)
	s.authorize(t, locked)
	plain := keygen(t, filepath.Join(t.TempDir(), "plain"), "rsa", "")
	open := filepath.Join(t.TempDir(), "open")
	command(t, "cp", "-p", locked, open)
	command(t, "ssh-keygen", "-q", "-p", "-P", "secret", "-N", "", "-f", open)
	socket := startAgent(t, plain, open)

	s.newClient(t).dial(t, Options{AgentSocket: socket})
	s.newClient(t, "IdentityAgent "+socket).dial(t, Options{})
	t.Setenv("SSH_AUTH_SOCK", socket)
	s.newClient(t).dial(t, Options{})
	t.Setenv("SSH_TEST_SOCK", socket)
	s.newClient(t, "IdentityAgent $SSH_TEST_SOCK").dial(t, Options{})
	s.newClient(t, "IdentityAgent none").refused(t, Options{})

	// With IdentitiesOnly the agent is good for the named keys alone, be they
	// named by an encrypted file or by the public half.
	s.newClient(t, "IdentitiesOnly yes").refused(t, Options{})
	for _, file := range []string{locked, locked + ".pub"} {
		s.newClient(t, "IdentitiesOnly yes", "IdentityFile "+file).dial(t, Options{})
	}
}

func TestNoKeyAccepted(t *testing.T) {
	s := startServer(t)
	locked := s.newKey(t, "ed25519", "secret")
	oldStyle := filepath.Join(t.TempDir(), "pem")
	command(t, "ssh-keygen", "-q", "-t", "rsa", "-m", "PEM", "-N", "secret", "-f", oldStyle)
	tooOpen := s.newKey(t, "ed25519", "")
	if err := os.Chmod(tooOpen, 0o644); err != nil {
		t.Fatal(err)
	}
	garbage := filepath.Join(t.TempDir(), "garbage")
	write(t, garbage, "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n")
	s.useNoKeys(t)
	socket := startAgent(t, s.key)
	for _, x := range []struct {
		setting, want string
	}{
		{"IdentityFile none", "tried " + s.key},
		{"IdentityFile " + locked, locked + " (encrypted, and no agent holds it)"},
		{"IdentityFile " + oldStyle, oldStyle + " (encrypted, and no agent holds it)"},
		{"IdentityFile " + tooOpen, tooOpen + " (mode 0644 is too open)"},
		{"IdentityFile " + garbage, garbage + " (ssh: "},
		{"IdentityFile /nowhere/key", "/nowhere/key (no such file)"},
		{"IdentityFile /", "/ (not a key file)"},
		{"IdentityFile " + locked + ".pub", locked + ".pub (a public key"},
		{"IdentityAgent /nowhere/agent", "agent /nowhere/agent (no such file or directory)"},
		{"IdentityAgent " + socket, `tried agent key "user"`},
	} {
		err := s.newClient(t, x.setting).refused(t, Options{})
		if fault.KindOf(err) != fault.Connect || !strings.Contains(err.Error(), x.want) ||
			!strings.Contains(err.Error(), "log in to root@127.0.0.1") || hint(err) == "" {
			t.Errorf("%s: %v", x.setting, err)
		}
	}
	err := s.newClient(t).refused(t, Options{User: "no-such-user"})
	if !strings.Contains(err.Error(), "log in to no-such-user@") {
		t.Errorf("err = %v", err)
	}
}

func TestNoKeyAtAll(t *testing.T) {
	s := startServer(t)
	c := s.newClient(t)
	target := c.resolve(t, Options{})
	target.identityFiles = []identityFile{{filepath.Join(t.TempDir(), "id_rsa"), true}}
	_, err := Dial(context.Background(), target)
	if fault.KindOf(err) != fault.Connect || !strings.HasSuffix(err.Error(), "no key to try") {
		t.Errorf("err = %v", err)
	}
}

func TestForwardAgent(t *testing.T) {
	s := startServer(t)
	inAgent := keygen(t, filepath.Join(t.TempDir(), "inagent"), "rsa", "")
	socket := startAgent(t, inAgent)
	both := []string{filepath.Base(inAgent), s.key}
	for _, x := range []struct {
		name, config, socket string
		forward              bool
		want                 []string
	}{
		{"agent and files", "LogLevel INFO", socket, true, both},
		{"files alone", "LogLevel INFO", "", true, both[1:]},
		{"ssh_config, agent alone", "ForwardAgent yes", socket, false, both[:1]},
		{"ssh_config without agent", "ForwardAgent yes", "", false, nil},
		{"nothing", "ForwardAgent no", socket, false, nil},
	} {
		c := s.newClient(t, x.config).dial(t, Options{AgentSocket: x.socket})
		session := start(t, c, SessionOptions{ForwardAgent: x.forward}, "ssh-add", "-l")
		out := readAll(session)
		if strings.Count(out, "SHA256:") != len(x.want) {
			t.Errorf("%s: %s", x.name, out)
		}
		for _, key := range x.want {
			if !strings.Contains(out, " "+key+" ") {
				t.Errorf("%s: no %s in %s", x.name, key, out)
			}
		}
	}
}

func readAll(s *Session) string {
	var b strings.Builder
	buf := make([]byte, 4096)
	for {
		n, err := s.Read(buf)
		b.Write(buf[:n])
		if err != nil {
			return b.String()
		}
	}
}

// TestForwardedKeyLogsIn goes on to a third host with the keys of this one.
func TestForwardedKeyLogsIn(t *testing.T) {
	s, third := startServer(t), startServer(t)
	third.useNoKeys(t)
	third.authorize(t, s.key)
	onward := third.newClient(t, "IdentityFile none")
	c := s.newClient(t).dial(t, Options{})
	session := start(t, c, SessionOptions{ForwardAgent: true}, "ssh", "-F", onward.config, "box", "echo", "third")
	if out := readAll(session); out != "third\n" || session.Wait() != nil {
		t.Errorf("%q, %v", out, session.Wait())
	}
	session = start(t, c, SessionOptions{ForwardAgent: true}, "ssh-add", "-D")
	var exit *ExitError
	if err := session.Wait(); !errors.As(err, &exit) {
		t.Errorf("the far side could empty the agent: %v", err)
	}
}

func TestForwardAgentForbidden(t *testing.T) {
	s := startServer(t, "AllowAgentForwarding no")
	c := s.newClient(t).dial(t, Options{})
	_, err := c.Start(context.Background(), []string{"true"}, SessionOptions{ForwardAgent: true})
	if fault.KindOf(err) != fault.Connect || !strings.Contains(hint(err), "AllowAgentForwarding") {
		t.Errorf("err = %v", err)
	}
	configured := s.newClient(t, "ForwardAgent yes").dial(t, Options{AgentSocket: startAgent(t)})
	run(t, configured, "true")
}
