package kv

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/vzkit/vzkit/bench/resp"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve runs s on a port of its own until the test ends.
func serve(t *testing.T, s *Server) (addr string) {
	t.Helper()
	ln, err := Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return ln.Addr().String()
}

func dial(t *testing.T, addr string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	conn.SetDeadline(time.Now().Add(time.Minute))
	t.Cleanup(func() { conn.Close() })
	return conn
}

func client(t *testing.T, addr string) *resp.Client {
	t.Helper()
	return resp.NewClient(dial(t, addr))
}

// CRIU dumps TCP sockets, not those of Multipath TCP.
func TestListenIsPlainTCP(t *testing.T) {
	ln, err := Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	raw, err := ln.(*net.TCPListener).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) {
		protocol, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PROTOCOL)
		if err != nil || protocol != unix.IPPROTO_TCP {
			t.Errorf("protocol %d, %v", protocol, err)
		}
	})
}

func TestMemoryIsBounded(t *testing.T) {
	c := client(t, serve(t, New(2000)))
	value := strings.Repeat("x", 1500)
	if _, err := c.Do("SET", "a", value); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Do("SET", "b", value); err == nil || !strings.Contains(err.Error(), "OOM") {
		t.Errorf("second value: %v", err)
	}
	if _, err := c.Do("SET", "a", value); err != nil {
		t.Errorf("same value again: %v", err)
	}
	c.Do("DEL", "a")
	if _, err := c.Do("SET", "b", value); err != nil {
		t.Errorf("after DEL: %v", err)
	}
	c.Do("FLUSHALL")
	if _, err := c.Do("SET", "a", value); err != nil {
		t.Errorf("after FLUSHALL: %v", err)
	}
}

func TestOversizedRepliesAreRefused(t *testing.T) {
	c := client(t, serve(t, New(DefaultMaxBytes)))
	if _, err := c.Do("SET", "k", strings.Repeat("x", resp.MaxBulk)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Do("MGET", "k", "k", "k", "k", "k"); err == nil {
		t.Error("5 MiB in one reply")
	}
	if r, err := c.Do("MGET", "k", "k"); err != nil || len(r.Elems) != 2 {
		t.Errorf("%d elements, %v", len(r.Elems), err)
	}
}

func TestInfoAndConfig(t *testing.T) {
	c := client(t, serve(t, New(DefaultMaxBytes)))
	c.Do("SET", "k", "v")
	r, err := c.Do("INFO")
	if err != nil || !strings.Contains(string(r.Text), "db0:keys=1,") {
		t.Errorf("INFO: %q, %v", r.Text, err)
	}
	if _, err := c.Do("CONFIG", "SET", "save", ""); err == nil {
		t.Error("CONFIG SET succeeded")
	}
}

func TestTooManyClients(t *testing.T) {
	addr := serve(t, New(DefaultMaxBytes))
	for range maxClients {
		if _, err := client(t, addr).Do("PING"); err != nil {
			t.Fatal(err)
		}
	}
	answer, err := io.ReadAll(dial(t, addr))
	if err != nil || !strings.Contains(string(answer), "max number of clients") {
		t.Errorf("one too many: %q, %v", answer, err)
	}
}

// A whole command is answered although only a part of the next one is there.
func TestNoReplyIsHeldBack(t *testing.T) {
	conn := dial(t, serve(t, New(DefaultMaxBytes)))
	io.WriteString(conn, "PING\r\n*2\r\n$3\r\nGE")
	if r, err := resp.NewReader(conn).ReadReply(); err != nil || string(r.Text) != "PONG" {
		t.Errorf("%q, %v", r.Text, err)
	}
}

func TestManyClientsAtOnce(t *testing.T) {
	addr := serve(t, New(DefaultMaxBytes))
	var wg sync.WaitGroup
	for i := range 8 {
		c := client(t, addr)
		wg.Go(func() {
			for n := range 200 {
				key := fmt.Sprintf("%d:%d", i, n%10)
				c.Do("SET", key, key)
				if r, err := c.Do("GET", key); err != nil || string(r.Text) != key {
					t.Errorf("%s: %q, %v", key, r.Text, err)
				}
			}
		})
	}
	wg.Wait()
	if r, err := client(t, addr).Do("DBSIZE"); err != nil || r.Int != 80 {
		t.Errorf("DBSIZE %d, %v", r.Int, err)
	}
}
