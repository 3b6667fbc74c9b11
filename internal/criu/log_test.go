package criu

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Each sample has the lines of a log of CRIU 4.2 that matter, and some around
// them.
func TestExplain(t *testing.T) {
	for _, c := range []struct{ name, log, want string }{
		{"success", "(00.000004) Version: 4.2.1\n(00.101000) Dumping finished successfully\n", ""},
		{"empty", "", ""},
		{"before any task", `(00.000004) Version: 4.2.1
(00.000120) Error (criu/cr-dump.c:1804): The criu itself is within dumped tree.
(00.000130) Error (criu/cr-dump.c:2128): Dumping FAILED.
`, "The criu itself is within dumped tree.; Dumping FAILED."},
		{"in a task", `(00.034567) Dumping task (pid: 4310 comm: init)
(00.040001) Obtaining task stat ...
(00.050102) Dumping task (pid: 4711 comm: redis-server)
(00.050900) 4711 fdinfo 16: pos:      0 flags:                2/0x1
(00.051000) Error (criu/files-ext.c:94): Can't dump file 16 of that type [600] (anon anon_inode:bpf-prog)
(00.051100) ----------------------------------------
(00.051200) Error (criu/cr-dump.c:1612): Dump files (pid: 4711) failed with -1
(00.051300) Error (criu/cr-dump.c:2128): Dumping FAILED.
`, `Can't dump file 16 of that type [600] (anon anon_inode:bpf-prog); Dump files (pid: 4711) failed with -1 (process 4711 "redis-server")`},
		{"odd command name", "(00.05) Dumping task (pid: 12 comm: a) \"b)\n(00.06) Error (criu/tty.c:1): no\n",
			`no (process 12 "a) \"b")`},
		{"harmless only", `(00.001000) Error (criu/rlimit.c:31): rlimit: Can't setup RLIMIT_NOFILE for self: Operation not permitted
(00.200000)      1: Error (criu/net.c:1400): ipv4: address already assigned
`, ""},
		{"restore", `(00.001000) Error (criu/rlimit.c:31): rlimit: Can't setup RLIMIT_NOFILE for self: Operation not permitted
(00.120000)     15: Error (criu/files-reg.c:2270): Can't open file var/log/x on restore: No such file or directory
`, "Can't open file var/log/x on restore: No such file or directory"},
		{"restorer", "(00.300000) pie: 77: Error (criu/pie/restorer.c:2080): sys_prctl(PR_SET_MM, PR_SET_MM_MAP) failed with -9\n",
			"sys_prctl(PR_SET_MM, PR_SET_MM_MAP) failed with -9"},
		{"words that look like errors", "(00.1) Warn  (criu/x.c:1): Error (not one): y\nError (criu/x.c:1): no time\n", ""},
		{"no end", "(00.1) Error (criu/x.c:1): cut", "cut"},
	} {
		if got := explain(strings.NewReader(c.log)); got != c.want {
			t.Errorf("%s:\n got %q\nwant %q", c.name, got, c.want)
		}
	}
}

func TestExplainFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "dump.log")
	if got := Explain(path); got != "" {
		t.Errorf("missing log: %q", got)
	}
	if err := os.WriteFile(path, []byte("(00.1) Error (criu/x.c:1): \xffbad\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := Explain(path); got != "\xffbad" {
		t.Errorf("explained %q", got)
	}
	long := "(00.1) Error (criu/x.c:1): first\n" + strings.Repeat("x", 2<<20) + "\n(00.2) Error (criu/x.c:2): second\n"
	if got := explain(strings.NewReader(long)); got != "first" {
		t.Errorf("log with a line without end: %q", got)
	}
}
