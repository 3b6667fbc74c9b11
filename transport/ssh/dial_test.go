package ssh

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	xssh "golang.org/x/crypto/ssh"

	"github.com/vzkit/vzkit/internal/fault"
)

func TestConfigIsFollowed(t *testing.T) {
	s := startServer(t)
	c := s.newClient(t)
	main := filepath.Join(t.TempDir(), "main")
	write(t, main, fmt.Sprintf("Host nick\n HostKeyAlias kennel\n Include %s\nMatch originalhost nick\n Include %s\n", c.config, c.config))
	text, err := os.ReadFile(c.config)
	if err != nil {
		t.Fatal(err)
	}
	write(t, c.config, strings.Replace(string(text), "Host box", "Host *", 1))
	write(t, c.known, "kennel "+s.hostKey+"\n")
	c.config = main
	target, err := Resolve("nick", Options{ConfigFile: main})
	if err != nil {
		t.Fatal(err)
	}
	conn, err := Dial(context.Background(), target)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if got := run(t, conn, "id", "-un"); got != "root\n" {
		t.Errorf("logged in as %q", got)
	}
}

func TestPrefersFastCipher(t *testing.T) {
	s := startServer(t)
	c := s.newClient(t).dial(t, Options{})
	got := c.conn.Conn.(xssh.AlgorithmsConnMetadata).Algorithms()
	if got.Read.Cipher != xssh.CipherAES128GCM || got.Write.Cipher != xssh.CipherAES128GCM {
		t.Errorf("ciphers %s, %s", got.Read.Cipher, got.Write.Cipher)
	}
}

func TestRefusedPort(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	err = dialAddr(addr, time.Minute)
	if fault.KindOf(err) != fault.Connect || err.Error() != "connect to "+addr+": connection refused" || hint(err) == "" {
		t.Errorf("err = %v", err)
	}
}

func dialAddr(addr string, timeout time.Duration) error {
	host, port, _ := strings.Cut(addr, ":")
	target, err := Resolve("ssh://"+host+":"+port, Options{ConfigFile: "none", Timeout: timeout})
	if err != nil {
		return err
	}
	c, err := Dial(context.Background(), target)
	if err == nil {
		c.Close()
	}
	return err
}

func TestBlackHole(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // the kernel accepts, nobody answers
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	err = dialAddr(l.Addr().String(), 100*time.Millisecond)
	if fault.KindOf(err) != fault.Connect || !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "no answer in 100ms") {
		t.Errorf("err = %v", err)
	}
}

func TestNotAnSSHServer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		conn, err := l.Accept()
		if err == nil {
			conn.Write([]byte(strings.Repeat("HTTP/1.1 400 Bad Request\r\n", 5000)))
			conn.Close()
		}
	}()
	if err := dialAddr(l.Addr().String(), time.Minute); fault.KindOf(err) != fault.Connect || hint(err) == "" {
		t.Errorf("err = %v", err)
	}
}

func TestUnknownName(t *testing.T) {
	target, err := Resolve("no-such-host.invalid", Options{ConfigFile: "none"})
	if err != nil {
		t.Fatal(err)
	}
	_, err = Dial(context.Background(), target)
	if fault.KindOf(err) != fault.Connect || !strings.Contains(err.Error(), `"no-such-host.invalid"`) {
		t.Errorf("err = %v", err)
	}
}

func TestCancelledDial(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	target, err := Resolve("ssh://"+l.Addr().String(), Options{ConfigFile: "none"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		conn, err := l.Accept()
		cancel()
		if err == nil {
			defer conn.Close()
			conn.Read(make([]byte, 1<<10))
		}
	}()
	_, err = Dial(ctx, target)
	if fault.KindOf(err) != fault.Interrupted || !errors.Is(err, context.Canceled) {
		t.Errorf("err = %v", err)
	}
}
