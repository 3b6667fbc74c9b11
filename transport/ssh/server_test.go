package ssh

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vzkit/vzkit/internal/mountns"
)

// server is an OpenSSH sshd of the test's own on 127.0.0.1.
type server struct {
	dir     string
	port    int
	hostKey string // public, "type base64"
	key     string // private key file that is authorized
}

// startServer runs sshd with more lines of configuration until the test ends.
func startServer(t *testing.T, config ...string) *server {
	t.Helper()
	s := &server{dir: t.TempDir()}
	s.key = keygen(t, filepath.Join(s.dir, "user"), "ed25519", "")
	host := keygen(t, filepath.Join(s.dir, "host"), "ed25519", "")
	s.hostKey = publicPart(t, host)
	s.authorize(t, s.key)
	config = append(config, "ListenAddress 127.0.0.1", "HostKey "+host, "UsePAM no", "StrictModes no",
		"PidFile none", "PermitRootLogin yes", "AuthorizedKeysFile "+filepath.Join(s.dir, "authorized"),
		"PasswordAuthentication no", "KbdInteractiveAuthentication no", "AcceptEnv SSH_TEST_*")
	for range 5 {
		if s.listen(t, config) {
			return s
		}
	}
	t.Fatal("sshd does not start")
	return nil
}

// listen starts sshd on a port that was free a moment ago.
func (s *server) listen(t *testing.T, config []string) bool {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.port = l.Addr().(*net.TCPAddr).Port
	l.Close()
	file := filepath.Join(s.dir, "sshd_config")
	write(t, file, strings.Join(append(config, fmt.Sprintf("Port %d", s.port)), "\n")+"\n")
	cmd := exec.Command("/bin/sh", "-c", inOwnRun, "sh", file)
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	mountns.Private(cmd.SysProcAttr)
	var log bytes.Buffer
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		cmd.Wait()
		close(ended)
	}()
	t.Cleanup(func() {
		awaitSessions(t, cmd.Process.Pid)
		cmd.Process.Kill()
		<-ended
		if t.Failed() {
			t.Logf("sshd: %s", log.String())
		}
	})
	for {
		conn, err := net.Dial("tcp", s.addr())
		if err == nil {
			conn.Close()
			return true
		}
		select {
		case <-ended:
			return false
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// inOwnRun starts sshd with a /run of its own, because it wants its separation
// directory there and other tests' sshd may come and go. From 9.8 on it turns
// away addresses whose logins failed, unless told not to.
const inOwnRun = `mount -t tmpfs none /run && mkdir /run/sshd
	set -- -f "$1" -o PerSourcePenalties=no
	/usr/sbin/sshd -t "$@" 2>/dev/null || set -- "$1" "$2"
	exec /usr/sbin/sshd -D -e "$@"`

// awaitSessions waits for sshd to have reaped its sessions, all of which have
// lost their clients by now.
func awaitSessions(t *testing.T, pid int) {
	t.Helper()
	file := fmt.Sprintf("/proc/%d/task/%d/children", pid, pid)
	for range 1000 {
		if b, err := os.ReadFile(file); err != nil || len(b) == 0 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("an sshd session is left over")
}

func (s *server) addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)) }

// authorize lets key log in.
func (s *server) authorize(t *testing.T, key string) {
	t.Helper()
	appendTo(t, filepath.Join(s.dir, "authorized"), publicPart(t, key)+"\n")
}

// knownLine is the known_hosts line of the server.
func (s *server) knownLine() string {
	return fmt.Sprintf("[127.0.0.1]:%d %s\n", s.port, s.hostKey)
}

// client is what a user of the server has in ~/.ssh.
type client struct {
	config, known string
}

// newClient writes an ssh_config with the host "box", and a known_hosts file
// that has it. The lines go before the usual ones and so override them.
func (s *server) newClient(t *testing.T, lines ...string) *client {
	t.Helper()
	dir := t.TempDir()
	c := &client{filepath.Join(dir, "config"), filepath.Join(dir, "known_hosts")}
	all := append([]string{"Host box"}, lines...)
	all = append(all, "HostName 127.0.0.1", fmt.Sprintf("Port %d", s.port), "User root", "IdentityFile "+s.key,
		"UserKnownHostsFile "+c.known, "GlobalKnownHostsFile none", "StrictHostKeyChecking yes")
	write(t, c.config, strings.Join(all, "\n  ")+"\n")
	write(t, c.known, s.knownLine())
	return c
}

func (c *client) resolve(t *testing.T, o Options) *Target {
	t.Helper()
	o.ConfigFile = c.config
	target, err := Resolve("box", o)
	if err != nil {
		t.Fatal(err)
	}
	return target
}

// dial connects and closes with the test.
func (c *client) dial(t *testing.T, o Options) *Client {
	t.Helper()
	conn, err := Dial(context.Background(), c.resolve(t, o))
	if err != nil {
		t.Fatalf("%v\nhint: %s", err, hint(err))
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// refused dials and returns the error there has to be.
func (c *client) refused(t *testing.T, o Options) error {
	t.Helper()
	conn, err := Dial(context.Background(), c.resolve(t, o))
	if err == nil {
		conn.Close()
		t.Fatal("connected")
	}
	return err
}

func run(t *testing.T, c *Client, argv ...string) string {
	t.Helper()
	out, err := c.Run(context.Background(), argv, nil)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func keygen(t *testing.T, file, kind, passphrase string) string {
	t.Helper()
	command(t, "ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-C", filepath.Base(file), "-f", file)
	return file
}

func publicPart(t *testing.T, key string) string {
	t.Helper()
	b, err := os.ReadFile(key + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	f := strings.Fields(string(b))
	return f[0] + " " + f[1]
}

func command(t *testing.T, argv ...string) string {
	t.Helper()
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%q: %v: %s", argv, err, out)
	}
	return string(out)
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func appendTo(t *testing.T, file, text string) {
	t.Helper()
	old, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	write(t, file, string(old)+text)
}

// relay is a TCP hop to the server that can stop moving bytes without closing
// anything: a link that was lost.
type relay struct {
	port   int
	moving sync.Mutex // held while bytes move, and while frozen

	mu    sync.Mutex
	conns []net.Conn
}

func startRelay(t *testing.T, to string) *relay {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{port: l.Addr().(*net.TCPAddr).Port}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			if err != nil {
				in.Close()
				continue
			}
			r.mu.Lock()
			r.conns = append(r.conns, in, out)
			r.mu.Unlock()
			wg.Go(func() { r.copy(in, out) })
			wg.Go(func() { r.copy(out, in) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		r.mu.Lock()
		for _, c := range r.conns {
			c.Close()
		}
		r.mu.Unlock()
		wg.Wait()
	})
	return r
}

func (r *relay) copy(dst, src net.Conn) {
	defer dst.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := src.Read(buf)
		if err != nil {
			return
		}
		r.moving.Lock()
		_, err = dst.Write(buf[:n])
		r.moving.Unlock()
		if err != nil {
			return
		}
	}
}

// freeze loses the link until the end of the test.
func (r *relay) freeze(t *testing.T) {
	r.moving.Lock()
	t.Cleanup(r.moving.Unlock)
}
