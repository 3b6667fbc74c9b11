package network_test

import (
	"net"
	"testing"
	"time"

	"github.com/vzkit/vzkit/internal/undo"
)

// What a neighbour sends while packets take the detour reaches the container
// afterwards, in order and once.
func TestDetour(t *testing.T) {
	for _, addr := range []string{container4, container6} {
		w := newWorld(t, container4, container6)
		var u undo.Stack
		w.connect(&u)
		w.wantReach(w.peer, w.in, addr) // and they know each other
		d, err := w.venet.OpenDetour()
		if err != nil {
			t.Fatal(err)
		}
		var server net.PacketConn
		w.at(w.in, func() { server = w.listen(addr) })
		var client net.Conn
		w.at(w.peer, func() { client, err = net.Dial("udp", server.LocalAddr().String()) })
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		defer server.Close()
		if err := d.Begin(); err != nil {
			t.Fatal(err)
		}
		send(t, client, "one", "two")
		wantNone(t, server)
		if err := d.Back(); err != nil {
			t.Fatal(err)
		}
		send(t, client, "three")
		for _, want := range []string{"one", "two", "three"} {
			if got := receive(server, 10*time.Second); got != want {
				t.Errorf("%s: got %q, want %q", addr, got, want)
			}
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
		if err := u.Run(); err != nil {
			t.Error(err)
		}
	}
}

func send(t *testing.T, c net.Conn, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if _, err := c.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
}

func receive(c net.PacketConn, within time.Duration) string {
	_ = c.SetReadDeadline(time.Now().Add(within))
	b := make([]byte, 100)
	n, _, err := c.ReadFrom(b)
	if err != nil {
		return ""
	}
	return string(b[:n])
}

func wantNone(t *testing.T, c net.PacketConn) {
	t.Helper()
	if got := receive(c, 50*time.Millisecond); got != "" {
		t.Errorf("got %q on the detour", got)
	}
}
