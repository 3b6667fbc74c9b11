package ssh

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vzkit/vzkit/internal/fault"
)

// quick makes a dead peer known soon. The tests wait for the error and do not
// look at the clock.
var quick = Options{KeepAlive: 100 * time.Millisecond, KeepAliveMax: 3}

// viaRelay is a client whose connection can be frozen.
func viaRelay(t *testing.T, s *server, lines ...string) (*client, *relay) {
	t.Helper()
	r := startRelay(t, s.addr())
	return s.newClient(t, append(lines, fmt.Sprintf("Port %d", r.port), "HostKeyAlias "+aliasOf(s))...), r
}

func aliasOf(s *server) string { return fmt.Sprintf("[127.0.0.1]:%d", s.port) }

func dead(t *testing.T, what string, err error) {
	t.Helper()
	if !errors.Is(err, ErrDeadPeer) || fault.KindOf(err) != fault.Connect || hint(err) == "" {
		t.Errorf("%s: %v", what, err)
	}
}

func TestDeadPeer(t *testing.T) {
	s := startServer(t)
	c, relay := viaRelay(t, s, "HostKeyAlias kennel")
	write(t, c.known, "kennel "+s.hostKey+"\n")
	conn := c.dial(t, quick)
	reader := start(t, conn, SessionOptions{}, "cat")
	writer := start(t, conn, SessionOptions{}, "sh", "-c", "cat >/dev/null")
	relay.freeze(t)
	_, err := io.ReadAll(reader)
	dead(t, "read", err)
	dead(t, "wait", reader.Wait())
	_, err = io.Copy(writer, endless{})
	dead(t, "write", err)
	_, err = conn.Run(t.Context(), []string{"true"}, nil)
	dead(t, "run", err)
	conn.Close()
}

// endless is a source of zeros.
type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// TestStalledWrite freezes the link while a writer has filled every buffer.
func TestStalledWrite(t *testing.T) {
	s := startServer(t)
	c, relay := viaRelay(t, s, "HostKeyAlias kennel")
	write(t, c.known, "kennel "+s.hostKey+"\n")
	conn := c.dial(t, quick)
	writer := start(t, conn, SessionOptions{}, "sh", "-c", "cat >/dev/null")
	ended := make(chan error, 1)
	go func() {
		_, err := io.Copy(writer, endless{})
		ended <- err
	}()
	for before := conn.link.received.Load(); conn.link.received.Load() < before+4096; {
		time.Sleep(time.Millisecond)
	}
	relay.freeze(t)
	dead(t, "write", <-ended)
}

// startWithParent runs cat and returns the pid of the sshd process it belongs to.
func startWithParent(t *testing.T, conn *Client) (*Session, int) {
	t.Helper()
	session := start(t, conn, SessionOptions{}, "sh", "-c", "echo $PPID; cat")
	buf := make([]byte, 32)
	n, err := session.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(buf[:n])))
	if err != nil {
		t.Fatal(err)
	}
	return session, pid
}

func TestDeadServerProcess(t *testing.T) {
	s := startServer(t)
	session, pid := startWithParent(t, s.newClient(t).dial(t, quick))
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer syscall.Kill(pid, syscall.SIGCONT)
	dead(t, "wait", session.Wait())
}

func TestDeadJumpHost(t *testing.T) {
	gate, last := startServer(t), startServer(t)
	r := startRelay(t, gate.addr())
	c := last.newClient(t, "ProxyJump gate")
	appendTo(t, c.known, "kennel "+gate.hostKey+"\n")
	behind(t, c, "Host gate\n HostKeyAlias kennel\n"+strings.Replace(gate.hop("gate", c),
		fmt.Sprintf("Port %d", gate.port), fmt.Sprintf("Port %d", r.port), 1))
	conn := c.dial(t, quick)
	session := start(t, conn, SessionOptions{}, "cat")
	r.freeze(t)
	_, err := io.Copy(session, endless{})
	dead(t, "write", err)
	dead(t, "wait", session.Wait())
}

// TestBusyPeerLives lets commands be silent or deaf for many periods, with all
// buffers full: none of it is a dead peer.
func TestBusyPeerLives(t *testing.T) {
	s := startServer(t)
	conn := s.newClient(t).dial(t, Options{KeepAlive: 50 * time.Millisecond, KeepAliveMax: 3})
	silent := start(t, conn, SessionOptions{}, "sleep", "1")
	deaf := start(t, conn, SessionOptions{}, "sleep", "1")
	unread := start(t, conn, SessionOptions{}, "cat", "/dev/zero")
	if _, err := io.Copy(deaf, endless{}); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("deaf command: %v", err)
	}
	for what, session := range map[string]*Session{"silent": silent, "deaf": deaf} {
		if err := session.Wait(); err != nil {
			t.Errorf("%s command: %v", what, err)
		}
	}
	if _, err := io.ReadFull(unread, make([]byte, 8<<20)); err != nil {
		t.Errorf("unread command: %v", err)
	}
}

// TestServerGoesAway cuts the connection: that is not the end of the output.
func TestServerGoesAway(t *testing.T) {
	s := startServer(t)
	session, pid := startWithParent(t, s.newClient(t).dial(t, Options{}))
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_, err := io.ReadAll(session)
	if fault.KindOf(err) != fault.Connect || errors.Is(err, ErrDeadPeer) {
		t.Errorf("Read: %v", err)
	}
	if err := session.Wait(); fault.KindOf(err) != fault.Connect {
		t.Errorf("Wait: %v", err)
	}
}
