package ssh

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vzkit/vzkit/internal/fault"
)

// proxySetting is a ProxyCommand that re-executes the test binary.
func proxySetting(t *testing.T) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return "ProxyCommand env " + asProxy + "=1 " + self + " %h %p"
}

func TestProxyCommand(t *testing.T) {
	s := startServer(t)
	for _, command := range []string{
		proxySetting(t),
		"ProxyCommand bash -c 'exec 3<>/dev/tcp/%h/%p; cat <&3 & cat >&3; kill $!' %% %r %n",
	} {
		c := s.newClient(t, command).dial(t, Options{})
		if got := run(t, c, "echo", "through"); got != "through\n" {
			t.Errorf("%s: %q", command, got)
		}
		pid := c.link.proxy.cmd.Process.Pid
		c.Close()
		if _, err := os.Stat(fmt.Sprintf("/proc/%d", pid)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: proxy is still there: %v", command, err)
		}
	}
}

func TestProxyCommandFails(t *testing.T) {
	s := startServer(t)
	for _, x := range []struct{ command, want string }{
		{"sh -c 'echo no way >&2; exit 7'", "exit status 7: no way"},
		{"/nowhere/proxy", "exit status 127"},
		{"true", "no SSH server behind it"},
	} {
		err := s.newClient(t, "ProxyCommand "+x.command).refused(t, Options{})
		if fault.KindOf(err) != fault.Connect || !strings.Contains(err.Error(), x.want) || hint(err) == "" {
			t.Errorf("%s: %v", x.command, err)
		}
	}
	err := s.newClient(t, "ProxyCommand sleep 1000").refused(t, Options{Timeout: 100 * time.Millisecond})
	if !strings.Contains(err.Error(), "no answer in 100ms") {
		t.Errorf("err = %v", err)
	}
}

// behind writes a configuration in which the lines of the hops follow those of
// the box behind them.
func behind(t *testing.T, box *client, hops ...string) {
	t.Helper()
	appendTo(t, box.config, strings.Join(hops, ""))
}

// hop is the Host block of a server to jump over.
func (s *server) hop(name string, c *client) string {
	return fmt.Sprintf("Host %s\n HostName 127.0.0.1\n Port %d\n User root\n IdentityFile %s\n UserKnownHostsFile %s\n",
		name, s.port, s.key, c.known)
}

func TestProxyJump(t *testing.T) {
	first, second, last := startServer(t), startServer(t), startServer(t)
	c := last.newClient(t, "ProxyJump one,root@two")
	appendTo(t, c.known, first.knownLine()+second.knownLine())
	behind(t, c, first.hop("one", c), second.hop("two", c))
	conn := c.dial(t, Options{})
	if conn.t.jump == nil || conn.t.jump.jump == nil || conn.t.jump.jump.jump != nil {
		t.Fatalf("route of %+v", conn.t)
	}
	// The last server sees the one before it: its source port is not ours.
	out := run(t, conn, "sh", "-c", "echo $SSH_CONNECTION")
	if want := fmt.Sprint(last.port); strings.Fields(out)[3] != want {
		t.Errorf("connection %q, want port %s", out, want)
	}
}

func TestProxyJumpFails(t *testing.T) {
	gate, last := startServer(t), startServer(t)
	c := last.newClient(t, "ProxyJump gate")
	behind(t, c, gate.hop("gate", c))
	if err := c.refused(t, Options{}); !strings.Contains(err.Error(), "not known") || !strings.Contains(hint(err), gate.hostKey) {
		t.Errorf("unknown gate: %v", err)
	}
	appendTo(t, c.known, gate.knownLine())

	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	o := Options{Port: l.Addr().(*net.TCPAddr).Port, Timeout: 500 * time.Millisecond}
	if err := c.refused(t, o); !strings.Contains(err.Error(), "no answer in 500ms") {
		t.Errorf("black hole behind the gate: %v", err)
	}
	l.Close()
	if err := c.refused(t, Options{Port: o.Port}); fault.KindOf(err) != fault.Connect || !strings.Contains(err.Error(), "by way of root@127.0.0.1") {
		t.Errorf("closed port behind the gate: %v", err)
	}
	other := last.newClient(t, "ProxyJump ssh://root@gate:"+fmt.Sprint(gate.port), "IdentityFile "+filepath.Join(gate.dir, "user"))
	behind(t, other, gate.hop("gate", c))
	other.dial(t, Options{})
}
