package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vzkit/vzkit/bench/ledger"
)

// runVzbench runs the program with nothing on its standard input.
func runVzbench(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = Vzbench(t.Context(), args, nil, &out, &errs)
	return code, out.String(), errs.String()
}

// startVzbenchServe runs vzbench serve until the test ends.
func startVzbenchServe(t *testing.T, args ...string) (addr string) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	out, w := io.Pipe()
	exit := make(chan int, 1)
	var errs bytes.Buffer
	go func() {
		exit <- Vzbench(ctx, append([]string{"serve", "--listen", "127.0.0.1:0"}, args...), nil, w, &errs)
		w.Close()
	}()
	t.Cleanup(func() {
		cancel()
		if code := <-exit; code != 0 {
			t.Errorf("vzbench serve: exit %d, %s", code, errs.String())
		}
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("%v, %s", err, errs.String())
	}
	return strings.TrimSpace(strings.TrimPrefix(line, "listening on "))
}

func TestVzbenchLoad(t *testing.T) {
	addr := startVzbenchServe(t)
	if code, out, errs := runVzbench(t, "load", "--addr", addr, "--keys", "1000"); code != 0 || !strings.Contains(out, "1,000 keys of 100 bytes") {
		t.Errorf("exit %d, %s %s", code, out, errs)
	}
	if code, out, errs := runVzbench(t, "load", "--addr", addr, "--keys", "1000", "--check"); code != 0 {
		t.Errorf("check: exit %d, %s %s", code, out, errs)
	}
	code, out, errs := runVzbench(t, "load", "--addr", addr, "--keys", "1001", "--check")
	if code != 1 || out != "" || !strings.Contains(errs, "1 of 1001 keys missing, 0 wrong") {
		t.Errorf("check of one more: exit %d, %s %s", code, out, errs)
	}
}

func TestVzbenchPidfile(t *testing.T) {
	pidfile := filepath.Join(t.TempDir(), "pid")
	t.Run("serve", func(t *testing.T) {
		startVzbenchServe(t, "--pidfile", pidfile)
		if b, err := os.ReadFile(pidfile); err != nil || strings.TrimSpace(string(b)) != strconv.Itoa(os.Getpid()) {
			t.Errorf("%q, %v", b, err)
		}
	})
	if _, err := os.Stat(pidfile); !os.IsNotExist(err) {
		t.Errorf("pid file is left behind: %v", err)
	}
}

func TestVzbenchLedger(t *testing.T) {
	addr, dir := startVzbenchServe(t), t.TempDir()
	file, log := filepath.Join(dir, "ledger.json"), filepath.Join(dir, "pauses")
	code, out, errs := runVzbench(t, "ledger", "--addr", addr, "--duration", "300ms", "--json", file, "--pause-log", log)
	if code != 0 || !strings.HasPrefix(out, "longest pause ") || !strings.Contains(out, " 0 missing") {
		t.Fatalf("exit %d, %s %s", code, out, errs)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var r ledger.Result
	if err := json.Unmarshal(b, &r); err != nil || r.Check() != nil || r.Connection.Remote != addr {
		t.Errorf("%s: %v, %v", b, err, r.Check())
	}
	if b, err := os.ReadFile(log); err != nil || bytes.Count(b, []byte("\n")) != len(r.Pauses) {
		t.Errorf("%d pauses, log %q, %v", len(r.Pauses), b, err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*")); len(left) != 2 {
		t.Errorf("files %q", left)
	}
}

func TestVzbenchLedgerEndsWithStdin(t *testing.T) {
	addr := startVzbenchServe(t)
	stdin, w := io.Pipe()
	time.AfterFunc(100*time.Millisecond, func() { w.Close() })
	var out, errs bytes.Buffer
	if code := Vzbench(t.Context(), []string{"ledger", "--addr", addr, "--json", "-"}, stdin, &out, &errs); code != 0 {
		t.Fatalf("exit %d, %s", code, errs.String())
	}
	var r ledger.Result
	if err := json.Unmarshal(out.Bytes(), &r); err != nil || r.Acked == 0 {
		t.Errorf("%s: %v", out.String(), err)
	}
	if !strings.Contains(errs.String(), "longest pause ") {
		t.Errorf("stderr %q", errs.String())
	}
}

func TestVzbenchLedgerConnectionLost(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			io.ReadFull(conn, make([]byte, 1))
			conn.(*net.TCPConn).SetLinger(0)
			conn.Close()
		}
	}()
	file := filepath.Join(t.TempDir(), "ledger.json")
	code, _, errs := runVzbench(t, "ledger", "--addr", ln.Addr().String(), "--json", file)
	if code != 1 || !strings.Contains(errs, "vzbench: error: connection reset") {
		t.Errorf("exit %d, %s", code, errs)
	}
	if b, err := os.ReadFile(file); err != nil || !bytes.Contains(b, []byte(`"error": "connection reset`)) {
		t.Errorf("%s, %v", b, err)
	}
}

func TestVzbenchRefusals(t *testing.T) {
	nowhere := filepath.Join(t.TempDir(), "absent", "file")
	for _, c := range []struct {
		args string
		code int
		want string
	}{
		{"nonsense", 2, `unknown command "nonsense"`},
		{"ledger --nonsense", 2, "unknown flag"},
		{"ledger extra", 2, "unknown command"},
		{"ledger", 2, "hint: Give --addr HOST:PORT"},
		{"ledger --addr localhost", 2, `address "localhost" of --addr unusable`},
		{"ledger --addr :1 --verify-addr x", 2, "of --verify-addr unusable"},
		{"ledger --addr :1 --duration -1s", 2, "duration -1s negative"},
		{"ledger --addr :1 --interval 2h", 2, "interval 2h0m0s out of range"},
		{"ledger --addr :1 --json " + nowhere, 1, "create JSON file"},
		{"ledger --addr :1 --pause-log " + nowhere, 1, "create pause log"},
		{"ledger --addr 127.0.0.1:1", 1, "hint: See that a server listens there"},
		{"load --addr 127.0.0.1:1 --keys 1", 1, `connect to "127.0.0.1:1"`},
		{"load --addr :1", 2, "number of keys 0 out of range"},
		{"load --addr :1 --keys 1 --size 9999999", 2, "value size 9999999 out of range"},
		{"downtime --workload idle64,nonsense", 2, `workload "nonsense" unknown`},
		{"downtime --peer docker", 2, "hint: It is runc or none"},
		{"downtime --runs 0", 2, "number of runs 0 out of range"},
		{"files --case debian-cold,nonsense", 2, `case "nonsense" unknown`},
		{"files --runs 0", 2, "number of runs 0 out of range"},
		{"files --runs many", 2, `value "many" of --runs is not a number`},
		{"files --runs 99999999999999999999", 2, `value "99999999999999999999" of --runs is not a number in its range`},
		{"files --scale 0", 2, "scale 0 out of range"},
		{"files --scale NaN", 2, "scale NaN out of range"},
		{"rewrite --files 1", 2, "number of files 1 out of range"},
		{"hog --memory 1", 2, "memory of 1 bytes out of range"},
		{"serve", 2, "of --listen unusable"},
		{"serve --listen 192.0.2.1:1", 1, "hint: Choose a local address"},
		{"serve --listen 127.0.0.1:0 --pidfile " + nowhere, 1, "write pid file"},
	} {
		code, _, errs := runVzbench(t, strings.Fields(c.args)...)
		if code != c.code || !strings.Contains(errs, c.want) {
			t.Errorf("%s: exit %d, %s", c.args, code, errs)
		}
	}
}

func TestVzbenchEnvAndVersion(t *testing.T) {
	code, out, _ := runVzbench(t, "env", "--json")
	var env map[string]any
	if err := json.Unmarshal([]byte(out), &env); code != 0 || err != nil || env["kernel"] == "" || env["cores"] == 0.0 {
		t.Errorf("exit %d, %s, %v", code, out, err)
	}
	if code, out, _ := runVzbench(t, "env"); code != 0 || !strings.Contains(out, "cgroup") {
		t.Errorf("exit %d, %s", code, out)
	}
	if code, out, _ := runVzbench(t, "version"); code != 0 || !strings.HasPrefix(out, "vzbench ") {
		t.Errorf("exit %d, %s", code, out)
	}
	if code, out, _ := runVzbench(t, "--help"); code != 0 || !strings.Contains(out, "ledger") {
		t.Errorf("exit %d, %s", code, out)
	}
}
