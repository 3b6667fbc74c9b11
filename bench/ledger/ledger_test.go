package ledger

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vzkit/vzkit/bench/kv"
	"github.com/vzkit/vzkit/bench/resp"
	"github.com/vzkit/vzkit/internal/fault"
)

func TestNothingHappens(t *testing.T) {
	addr := serve(t, kv.New(kv.DefaultMaxBytes))
	ctx, last := untilAcked(t, 200)
	next := uint64(1)
	r, err := Run(ctx, Config{
		Dial: dialer(addr), VerifyDial: dialer(addr), Name: "quiet",
		OnAck: func(n uint64, at time.Time) {
			if n != next || at.IsZero() {
				t.Errorf("acknowledged %d at %v, expected %d", n, at, next)
			}
			next++
			last(n, at)
		},
	})
	if err != nil || r.Check() != nil {
		t.Fatalf("%v, %v", err, r.Check())
	}
	if r.Acked < 200 || r.Sent != r.Acked || len(r.Verifications) != 2 || r.Connection.Remote != addr {
		t.Errorf("%+v", r)
	}
	checkWords(t, r.String(), "1 connection 127.0.0.1:", "the whole time", " 0 missing")
	checkJSON(t, r)
}

func checkWords(t *testing.T, text string, words ...string) {
	t.Helper()
	for _, w := range words {
		if !strings.Contains(text, w) {
			t.Errorf("%q is not in %q", w, text)
		}
	}
}

func checkJSON(t *testing.T, r Result) {
	t.Helper()
	b, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{
		"local", "remote", "cookie", "same", "acked", "missing", "mismatched", "longest_pause_ms", "longest_pause_at",
		"latency_ms", "p50", "p99", "max", "pauses", "retransmits", "duration_s", "error",
	} {
		checkWords(t, string(b), `"`+key+`":`)
	}
	var again Result
	if err := json.Unmarshal(b, &again); err != nil || again.Check() != nil {
		t.Errorf("read back from JSON: %v, %v", err, again.Check())
	}
}

// The server's process stands still for a while, as in a migration.
func TestStoppedServer(t *testing.T) {
	addr, server := serveProcess(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var logged []Pause
	stop := func(n uint64, _ time.Time) {
		switch n {
		case 50:
			server.Signal(syscall.SIGSTOP)
			time.AfterFunc(400*time.Millisecond, func() { server.Signal(syscall.SIGCONT) })
		case 700:
			cancel()
		}
	}
	r, err := Run(ctx, Config{
		Dial: dialer(addr), VerifyDial: dialer(addr), OnAck: stop,
		OnPause: func(p Pause) { logged = append(logged, p) },
	})
	if err != nil || r.Check() != nil {
		t.Fatalf("%v, %v", err, r.Check())
	}
	if r.LongestPauseMS < 300 || r.LongestPauseAt.IsZero() || r.Latency.Max < 300 || r.Latency.P99 < 100 {
		t.Errorf("stopped for 400 ms, reported %s", r)
	}
	if len(logged) == 0 || len(logged) != len(r.Pauses) {
		t.Errorf("%d pauses logged, %d reported", len(logged), len(r.Pauses))
	}
}

func TestLostRecordIsMissing(t *testing.T) {
	r := tamper(t, func(c *resp.Client, key string) { c.Do("DEL", key) })
	if err := r.Check(); r.Missing != 1 || r.Mismatched != 0 || err == nil {
		t.Fatalf("%+v, %v", r, err)
	}
	checkWords(t, r.Check().Error(), "1 of", "missing", "[50]")
}

func TestAlteredRecordIsMismatched(t *testing.T) {
	r := tamper(t, func(c *resp.Client, key string) { c.Do("SET", key, "lie") })
	if err := r.Check(); r.Mismatched != 1 || r.Missing != 0 || err == nil {
		t.Fatalf("%+v, %v", r, err)
	}
	checkWords(t, r.Check().Error(), "1 of", "altered", "[50]")
}

// tamper does harm to record 50 behind the ledger's back.
func tamper(t *testing.T, harm func(c *resp.Client, key string)) Result {
	addr := serve(t, kv.New(kv.DefaultMaxBytes))
	conn, err := dialer(addr)(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, last := untilAcked(t, 100)
	r, err := Run(ctx, Config{Dial: dialer(addr), VerifyDial: dialer(addr), Name: "x",
		OnAck: func(n uint64, at time.Time) {
			if n == 60 {
				harm(resp.NewClient(conn), "ledger:x:50")
			}
			last(n, at)
		}})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// relay passes one connection on to addr until the function it returns is
// called; that ends it with a reset or, gracefully, with an end of stream.
func relay(t *testing.T, addr string, graceful bool) (via string, cut func()) {
	ln := listen(t)
	conns := make(chan net.Conn, 2)
	go func() {
		client, err := ln.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", addr)
		if err != nil {
			client.Close()
			return
		}
		conns <- client
		conns <- server
		go io.Copy(server, client)
		io.Copy(client, server)
	}()
	return ln.Addr().String(), func() {
		client, server := (<-conns).(*net.TCPConn), <-conns
		if graceful {
			client.CloseWrite()
			server.Close()
			t.Cleanup(func() { client.Close() })
			return
		}
		client.SetLinger(0)
		client.Close()
		server.Close()
	}
}

func TestResetConnection(t *testing.T) {
	r, err := cutAt100(t, false)
	if !errors.Is(err, syscall.ECONNRESET) || fault.KindOf(err) != fault.Connect {
		t.Errorf("Run: %v", err)
	}
	checkWords(t, r.Check().Error(), "connection reset after ", " acknowledged writes")
}

func TestClosedConnection(t *testing.T) {
	r, _ := cutAt100(t, true)
	checkWords(t, r.Check().Error(), "connection closed by the server after ")
}

// cutAt100 cuts the connection at record 100. What was acknowledged before is
// still found on a fresh connection.
func cutAt100(t *testing.T, graceful bool) (Result, error) {
	addr := serve(t, kv.New(kv.DefaultMaxBytes))
	via, cut := relay(t, addr, graceful)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	r, err := Run(ctx, Config{Dial: dialer(via), VerifyDial: dialer(addr), OnAck: func(n uint64, _ time.Time) {
		if n == 100 {
			cut()
		}
	}})
	if err == nil || ctx.Err() != nil {
		t.Fatalf("the run went on after the connection ended: %v", err)
	}
	if r.Acked < 100 || r.Missing != 0 || r.Connection.Same || len(r.Verifications) != 1 || r.Verifications[0].Read != r.Acked {
		t.Errorf("%+v", r)
	}
	checkWords(t, r.String(), "lost on the way")
	return r, err
}

func TestRefusedWrite(t *testing.T) {
	addr := serve(t, kv.New(10_000))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	r, err := Run(ctx, Config{Dial: dialer(addr)})
	if err == nil || r.Check() == nil || r.Acked == 0 || r.Missing != 0 {
		t.Fatalf("%+v, %v", r, err)
	}
	checkWords(t, err.Error(), "write record ", "OOM")
}

// answer accepts one connection and says the same thing to everything.
func answer(t *testing.T, text string) (addr string) {
	ln := listen(t)
	go func() {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		t.Cleanup(func() { conn.Close() })
		buf := make([]byte, 1<<16)
		for {
			if _, err := conn.Read(buf); err != nil {
				return
			}
			io.WriteString(conn, text)
		}
	}()
	return ln.Addr().String()
}

func TestNoRedis(t *testing.T) {
	r, err := Run(t.Context(), Config{Dial: dialer(answer(t, "HTTP/1.1 400 Bad Request\r\n"))})
	if err == nil || r.Acked != 0 || r.Check() == nil {
		t.Fatalf("%+v, %v", r, err)
	}
	checkWords(t, err.Error(), "protocol error")
}

func TestSilentServer(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	r, err := Run(ctx, Config{Dial: dialer(answer(t, "")), Patience: 50 * time.Millisecond})
	if err == nil || r.Acked != 0 || r.LongestPauseMS < 50 {
		t.Fatalf("%+v, %v", r, err)
	}
	checkWords(t, err.Error(), "no reply for 50ms")
}

func TestNobodyListens(t *testing.T) {
	ln := listen(t)
	ln.Close()
	if _, err := Run(t.Context(), Config{Dial: dialer(ln.Addr().String())}); fault.KindOf(err) != fault.Connect {
		t.Error(err)
	}
}

func TestBadConfig(t *testing.T) {
	for _, cfg := range []Config{
		{Interval: -1}, {Interval: time.Hour}, {Name: "a b"}, {Name: "a:b"}, {Name: strings.Repeat("x", 65)},
	} {
		if _, err := Run(t.Context(), cfg); fault.KindOf(err) != fault.BadValue || fault.HintOf(err) == "" {
			t.Errorf("%+v: %v", cfg, err)
		}
	}
}

func TestStatus(t *testing.T) {
	addr := serve(t, kv.New(kv.DefaultMaxBytes))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var got Status
	r, err := Run(ctx, Config{Dial: dialer(addr), OnStatus: func(s Status) { got = s; cancel() }})
	if err != nil || got.Acked == 0 || got.Acked > r.Acked || got.Elapsed == 0 {
		t.Errorf("%+v, %v", got, err)
	}
}
