package load

import (
	"bytes"
	"context"
	"net"
	"testing"

	"github.com/vzkit/vzkit/bench/kv"
	"github.com/vzkit/vzkit/bench/resp"
	"github.com/vzkit/vzkit/internal/fault"
)

// serve starts an empty server for the test and returns how to reach it.
func serve(t *testing.T, maxBytes int64) (dial func() net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- kv.New(maxBytes).Serve(ctx, ln) }()
	t.Cleanup(func() { cancel(); <-done })
	return func() net.Conn {
		conn, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn
	}
}

func TestFillAndCheck(t *testing.T) {
	dial := serve(t, kv.DefaultMaxBytes)
	c := Config{Keys: 3000, Size: 100, Seed: 7}
	for range 2 { // the second fill overwrites
		if _, err := Fill(t.Context(), dial(), c); err != nil {
			t.Fatal(err)
		}
	}
	if d, err := Check(t.Context(), dial(), c); err != nil || d != (Damage{}) {
		t.Errorf("untouched: %+v, %v", d, err)
	}
	other := resp.NewClient(dial())
	other.Do("DEL", "key:00000017", "key:00002999")
	other.Do("SET", "key:00000000", "x")
	if d, err := Check(t.Context(), dial(), c); err != nil || d != (Damage{Missing: 2, Wrong: 1}) {
		t.Errorf("damaged: %+v, %v", d, err)
	}
	c.Seed++
	if d, err := Check(t.Context(), dial(), c); err != nil || d.Wrong != 2998 {
		t.Errorf("other seed: %+v, %v", d, err)
	}
}

func TestStrangersAreCounted(t *testing.T) {
	dial := serve(t, kv.DefaultMaxBytes)
	resp.NewClient(dial()).Do("SET", "stranger", "x")
	if _, err := Fill(t.Context(), dial(), Config{Keys: 10, Size: 1}); err != nil {
		t.Error(err)
	}
}

func TestFullServer(t *testing.T) {
	dial := serve(t, 10_000)
	if _, err := Fill(t.Context(), dial(), Config{Keys: 1000, Size: 100}); err == nil {
		t.Error("a full server was filled")
	}
}

func TestValidate(t *testing.T) {
	for _, c := range []Config{
		{Keys: 0, Size: 1}, {Keys: MaxKeys + 1, Size: 1}, {Keys: 1, Size: 0}, {Keys: 1, Size: resp.MaxBulk + 1},
	} {
		if err := c.Validate(); fault.KindOf(err) != fault.BadValue || fault.HintOf(err) == "" {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

func TestValuesDiffer(t *testing.T) {
	c := Config{Size: 100, Seed: 1}
	a, b := c.appendValue(nil, 1), c.appendValue(nil, 2)
	if len(a) != 100 || bytes.Equal(a, b) || !bytes.Equal(a, c.appendValue(nil, 1)) {
		t.Errorf("%q, %q", a, b)
	}
}
