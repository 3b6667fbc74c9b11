package probe

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

func TestGaps(t *testing.T) {
	var g gaps
	for _, at := range []time.Duration{5, 6, 7, 30, 31, 50} {
		g.event(at * time.Millisecond)
	}
	if g.longest != 23*time.Millisecond || g.from != 7*time.Millisecond {
		t.Errorf("longest %v from %v", g.longest, g.from)
	}
	var none gaps
	none.event(time.Hour)
	if none.longest != 0 {
		t.Errorf("one event makes a gap of %v", none.longest)
	}
}

// server accepts one connection and hands it to do.
func server(t *testing.T, do func(net.Conn)) net.Conn {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		defer ln.Close()
		if conn, err := ln.Accept(); err == nil {
			defer conn.Close()
			do(conn)
		}
	}()
	conn, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

func TestEchoSeesAPause(t *testing.T) {
	const pause = 150 * time.Millisecond
	e, err := Start(server(t, func(conn net.Conn) {
		buf := make([]byte, 400) // 50 messages
		io.ReadFull(conn, buf)
		conn.Write(buf)
		time.Sleep(pause)
		io.Copy(conn, conn)
	}))
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(2 * pause)
	if !e.CaughtUp(10 * time.Second) {
		t.Error("not caught up")
	}
	seen, err := e.Stop()
	if err != nil {
		t.Fatal(err)
	}
	if seen.Gap < pause-20*time.Millisecond || seen.MaxRTT < seen.Gap-20*time.Millisecond || seen.Sent == 0 {
		t.Errorf("%+v", seen)
	}
	if ago := time.Since(seen.GapAt); ago < pause || ago > time.Minute {
		t.Errorf("gap began %v ago", ago)
	}
}

func TestEchoTellsWrongAnswers(t *testing.T) {
	for name, do := range map[string]func(net.Conn){
		"closed": func(conn net.Conn) { conn.Read(make([]byte, 8)) },
		"wrong": func(conn net.Conn) {
			conn.Write([]byte("eight b."))
			io.Copy(io.Discard, conn)
		},
	} {
		e, err := Start(server(t, do))
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
		if _, err := e.Stop(); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestDuring(t *testing.T) {
	echo := func(conn net.Conn) { io.Copy(conn, conn) }
	var done bool
	seen, err := During(server(t, echo), func() error { done = true; return nil })
	if err != nil || !done || seen.Sent == 0 || seen.Echoed != seen.Sent {
		t.Errorf("%+v, %v", seen, err)
	}
	wrong := errors.New("not done")
	if _, err := During(server(t, func(net.Conn) {}), func() error { return wrong }); err != wrong {
		t.Errorf("%v, want that of what was done", err)
	}
	if _, err := During(server(t, func(net.Conn) {}), func() error { return nil }); err == nil {
		t.Error("no error where nobody answers")
	}
}

func TestMemoryStat(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		want uint64
	}{
		"v1": {"cache 9\nrss 1\nshmem 2\nrss_huge 4\ntotal_cache 90\ntotal_rss 10\ntotal_shmem 20\ntotal_rss_huge 40\n", 30},
		"v2": {"anon 100\nfile 7\nkernel 3\nshmem 200\nanon_thp 50\n", 300},
	} {
		if got := taken([]byte(c.text)); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
	files := statFiles("9:memory:/vzlab/alpha/init\n8:cpu,cpuacct:/x\n0::/vzlab/alpha/init\n")
	want := []string{"/sys/fs/cgroup/memory/vzlab/alpha/memory.stat", "/sys/fs/cgroup/vzlab/alpha/memory.stat"}
	if len(files) != 2 || files[0] != want[0] || files[1] != want[1] {
		t.Errorf("%q", files)
	}
}

func TestMemoryPeak(t *testing.T) {
	file := t.TempDir() + "/memory.stat"
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("anon 500\n")
	m := &Memory{file: file}
	m.Start()
	for end := time.Now().Add(5 * time.Second); m.peak.Load() == 0 && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	write("anon 300\n")
	if peak := m.Stop(); peak != 500 {
		t.Errorf("peak %d", peak)
	}
}
