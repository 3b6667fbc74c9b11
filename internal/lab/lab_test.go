package lab_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/internal/lab"
)

func TestHostsReachEachOther(t *testing.T) {
	l := up(t, 2)
	alpha, beta, admin := host(t, l, "alpha"), host(t, l, "beta"), host(t, l, "admin")
	ssh := "ssh -o BatchMode=yes "
	for _, c := range []struct {
		from         *lab.Host
		script, want string
	}{
		{alpha, ssh + "beta hostname", "beta"},
		{beta, ssh + "alpha hostname", "alpha"},
		{admin, ssh + "alpha " + ssh + "beta hostname", "beta"},
		{alpha, ssh + beta.Addr().String() + " hostname", "beta"},
		{alpha, ssh + beta.Addr6().String() + " hostname", "beta"},
		{alpha, ssh + "beta command -v vzlab", filepath.Join(l.Bin, "vzlab")},
		{alpha, "command -v vzlab", filepath.Join(l.Bin, "vzlab")},
	} {
		if got := run(t, c.from, c.script); got != c.want {
			t.Errorf("%s on %s: %q, want %q", c.script, c.from.Name(), got, c.want)
		}
	}
	for _, addr := range []string{alpha.Addr().String(), alpha.Addr6().String()} {
		wantEcho(t, alpha, beta, net.JoinHostPort(addr, "7"))
	}
}

// wantEcho sends a line from one host's network to the other's and back.
func wantEcho(t *testing.T, server, client *lab.Host, addr string) {
	t.Helper()
	ln, err := server.Listen(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		if c, err := ln.Accept(); err == nil {
			_, _ = io.Copy(c, c)
			c.Close()
		}
	}()
	c, err := client.Dial(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "hello\n"); err != nil {
		t.Fatal(err)
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(c); string(got) != "hello\n" {
		t.Errorf("echo %q, %v", got, err)
	}
	if got := c.RemoteAddr().String(); got != addr {
		t.Errorf("connected to %s, want %s", got, addr)
	}
}

func TestHostsShareNothing(t *testing.T) {
	l := up(t, 2)
	alpha, beta := host(t, l, "alpha"), host(t, l, "beta")
	for _, ns := range []string{"pid", "mnt", "net", "uts", "ipc", "cgroup"} {
		link := "readlink /proc/self/ns/" + ns
		machine, err := os.Readlink("/proc/self/ns/" + ns)
		if a, b := run(t, alpha, link), run(t, beta, link); err != nil || a == b || a == machine {
			t.Errorf("%s namespace: alpha %s, beta %s, machine %s, %v", ns, a, b, machine, err)
		}
	}
	for _, dir := range []string{"/run", "/etc/vz", "/var/lib/vz"} {
		run(t, alpha, "touch "+dir+"/alphas")
		run(t, beta, "! test -e "+dir+"/alphas")
		if _, err := os.Lstat(dir + "/alphas"); err == nil {
			t.Errorf("%s of alpha is the machine's", dir)
		}
	}
	run(t, alpha, "mkdir /var/lib/vz/template/shared")
	run(t, beta, "rmdir /var/lib/vz/template/shared")
	for script, want := range map[string]string{
		"hostname":                                   "alpha",
		"cat /proc/sys/kernel/hostname":              "alpha",
		"cat /proc/1/cmdline | tr '\\0' ' '":         "vzlab-host alpha " + l.Dir,
		"ls /sys/class/net":                          "eth0\nlo",
		"cat /proc/sys/net/ipv4/ip_forward":          "1",
		"cat /proc/sys/net/ipv6/conf/all/forwarding": "1",
		"cut -d: -f3 /proc/self/cgroup | sort -u":    "/init",
		"grep -c ' /sys/fs/cgroup/[a-z]* .* - cgroup /\\.\\.' /proc/self/mountinfo || true": "0",
		"stat -f -c %T /run": "tmpfs",
	} {
		if got := run(t, alpha, script); got != want {
			t.Errorf("%s: %q, want %q", script, got, want)
		}
	}
	for _, name := range []string{"alpha", "beta", "admin", "br0", "eth0"} {
		if _, err := net.InterfaceByName(name); err == nil && name != "eth0" {
			t.Errorf("interface %s on the machine itself", name)
		}
	}
}

// Containers get cgroups beside the host's init, with every controller, and
// the machine sees them below the lab's group.
func TestHostMakesCgroups(t *testing.T) {
	l := up(t, 1)
	alpha := host(t, l, "alpha")
	run(t, alpha, `
		for d in $(awk '$3 ~ /^cgroup/ {print $2}' /proc/mounts); do
			mkdir -p $d/vz/101 || exit 1
			if test -e $d/cpuset.cpus; then
				for v in cpus mems; do
					cat $d/cpuset.$v >$d/vz/cpuset.$v; cat $d/vz/cpuset.$v >$d/vz/101/cpuset.$v
				done
			fi
			echo $$ >$d/vz/101/cgroup.procs || exit 1
			if test -e $d/cgroup.subtree_control; then
				test "$(cat $d/cgroup.controllers)" = "$(cat $d/cgroup.subtree_control)" || exit 1
			fi
		done
		cut -d: -f3 /proc/self/cgroup | sort -u | grep -qx /vz/101`)
	if got := processes(l.Dir); len(got) == 0 {
		t.Error("no process in the lab's cgroups")
	}
}

func TestCommandStatus(t *testing.T) {
	l := up(t, 1)
	for _, c := range []struct {
		argv []string
		want int
	}{
		{[]string{"true"}, 0},
		{[]string{"sh", "-c", "exit 42"}, 42},
		{[]string{"sh", "-c", "kill -9 $$"}, 137},
		{[]string{"no-such-command"}, 127},
		{[]string{"/etc/passwd"}, 126},
		{nil, 125},
	} {
		status, _ := lab.Run(host(t, l, "alpha").Command(t.Context(), c.argv...))
		if status != c.want {
			t.Errorf("%q: status %d, want %d", c.argv, status, c.want)
		}
	}
}

func TestCommandStreamsAndEnvironment(t *testing.T) {
	l := up(t, 1)
	cmd := host(t, l, "alpha").Command(t.Context(), "sh", "-c", "cat; echo $EXTRA $HOME >&2; pwd")
	cmd.Dir = "/usr"
	cmd.Env = append(cmd.Env, "EXTRA=more")
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader("in\n"), &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	if out.String() != "in\n/usr\n" || !strings.HasPrefix(errs.String(), "more /") {
		t.Errorf("stdout %q, stderr %q", out.String(), errs.String())
	}
}

// loop starts a command that says its pid, as the host counts, and goes on
// until a SIGTERM, which it takes as an order to exit with 7.
func loop(t *testing.T, ctx context.Context, h *lab.Host) (cmd *exec.Cmd, pid string) {
	t.Helper()
	cmd = h.Command(ctx, "sh", "-c", "trap 'exit 7' TERM; echo $$; while :; do sleep 0.01; done")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 16)
	n, err := out.Read(line)
	if err != nil {
		t.Fatal(err)
	}
	pid = strings.TrimSpace(string(line[:n]))
	if _, err := strconv.Atoi(pid); err != nil {
		t.Fatal(err)
	}
	return cmd, pid
}

func TestCommandSignals(t *testing.T) {
	l := up(t, 1)
	alpha := host(t, l, "alpha")

	cmd, _ := loop(t, t.Context(), alpha)
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if _ = cmd.Wait(); cmd.ProcessState.ExitCode() != 7 {
		t.Errorf("after SIGTERM: %v", cmd.ProcessState)
	}

	ctx, cancel := context.WithCancel(t.Context())
	cmd, pid := loop(t, ctx, alpha)
	run(t, alpha, "kill -0 "+pid)
	cancel()
	if err := cmd.Wait(); err == nil {
		t.Error("killed command ended well")
	}
	eventually(t, "killed command to go", func() bool {
		return alpha.Command(t.Context(), "sh", "-c", "kill -0 "+pid).Run() != nil
	})
}

func TestUpIsIdempotentAndExtends(t *testing.T) {
	l := up(t, 2)
	before, pids := listing(t, l.Dir), pidsOf(l)
	var log bytes.Buffer
	again, err := lab.Up(t.Context(), lab.Config{Dir: l.Dir, Hosts: 2, Bin: l.Bin, Log: &log})
	if err != nil {
		t.Fatal(err)
	}
	if got := listing(t, l.Dir); got != before {
		t.Errorf("second up changed the state:\n%s\nwas:\n%s", got, before)
	}
	if got := pidsOf(again); got != pids {
		t.Errorf("second up restarted hosts: %s, were %s", got, pids)
	}
	if strings.Count(log.String(), "ready\n") != 3 || !strings.Contains(log.String(), "beta     198.18.77.12  ready") {
		t.Errorf("log %q", log.String())
	}

	three, err := lab.Up(t.Context(), lab.Config{Dir: l.Dir, Hosts: 3, Bin: l.Bin})
	if err != nil {
		t.Fatal(err)
	}
	if got := pidsOf(three); !strings.HasPrefix(got, pids[:strings.Index(pids, "admin")]) {
		t.Errorf("up 3 restarted hosts: %s, were %s", got, pids)
	}
	if got := run(t, host(t, three, "alpha"), "ssh -o BatchMode=yes gamma hostname"); got != "gamma" {
		t.Errorf("gamma says %q", got)
	}
	if fewer, err := lab.Up(t.Context(), lab.Config{Dir: l.Dir, Hosts: 1, Bin: l.Bin}); err != nil || len(fewer.Hosts()) != 4 {
		t.Errorf("up 1 after up 3: %v, %v", fewer, err)
	}
}

func pidsOf(l *lab.Lab) string {
	var b strings.Builder
	for _, h := range l.Hosts() {
		b.WriteString(h.Name() + "=" + strconv.Itoa(h.Pid()) + " ")
	}
	return b.String()
}

func TestTwoUpsAtOnce(t *testing.T) {
	l := up(t, 1)
	if err := l.Down(); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var pids [3]string
	for i := range pids {
		wg.Go(func() {
			l, err := lab.Up(t.Context(), lab.Config{Dir: l.Dir, Hosts: 1, Bin: l.Bin})
			if err != nil {
				t.Error(err)
				return
			}
			pids[i] = pidsOf(l)
		})
	}
	wg.Wait()
	if pids[0] != pids[1] || pids[1] != pids[2] {
		t.Errorf("hosts differ: %q", pids)
	}
}

// A new program directory reaches sshd without a restart of the host.
func TestUpFollowsTheBuild(t *testing.T) {
	l := up(t, 1)
	pids, bin := pidsOf(l), binDir(t)
	l, err := lab.Up(t.Context(), lab.Config{Dir: l.Dir, Hosts: 1, Bin: bin})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "sshd to read its configuration", func() bool {
		out, _ := host(t, l, "admin").Command(t.Context(), "ssh", "-o", "BatchMode=yes", "alpha", "command -v vzlab").Output()
		return strings.TrimSpace(string(out)) == filepath.Join(bin, "vzlab")
	})
	if got := pidsOf(l); got != pids {
		t.Errorf("hosts restarted: %s, were %s", got, pids)
	}
}

func TestReboot(t *testing.T) {
	l := up(t, 1)
	alpha := host(t, l, "alpha")
	pid := alpha.Pid()
	run(t, alpha, "touch /run/x /var/lib/vz/x /etc/vz/x; for d in /sys/fs/cgroup/*/; do mkdir $d/vz; done; sleep 1000 >/dev/null 2>&1 &")
	if err := alpha.Reboot(t.Context()); err != nil {
		t.Fatal(err)
	}
	run(t, alpha, "test -e /var/lib/vz/x && test -e /etc/vz/x && ! test -e /run/x && ! ls -d /sys/fs/cgroup/*/vz 2>/dev/null")
	if alpha.Pid() == pid {
		t.Error("same init as before")
	}
	if got := run(t, host(t, l, "admin"), "ssh -o BatchMode=yes alpha hostname; ssh -o BatchMode=yes alpha pgrep -c sleep || true"); got != "alpha\n0" {
		t.Errorf("after reboot: %q", got)
	}
}

func TestRefusals(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "lab")
	damaged := t.TempDir()
	if err := os.MkdirAll(filepath.Join(damaged, "state"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(damaged, "state", "lab.json"), []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		do   func() error
		want fault.Kind
	}{
		{"too many hosts", func() error { _, err := lab.Up(t.Context(), lab.Config{Dir: dir, Hosts: 9}); return err }, fault.BadValue},
		{"negative hosts", func() error { _, err := lab.Up(t.Context(), lab.Config{Dir: dir, Hosts: -1}); return err }, fault.BadValue},
		{"below /run", func() error { _, err := lab.Up(t.Context(), lab.Config{Dir: "/run/vzlab"}); return err }, fault.BadValue},
		{"down of the machine's own", func() error { return lab.Down(t.Context(), "/etc", true) }, fault.BadValue},
		{"open nothing", func() error { _, err := lab.Open(dir); return err }, fault.NotRunning},
		{"open damaged", func() error { _, err := lab.Open(damaged); return err }, fault.Config},
		{"up damaged", func() error { _, err := lab.Up(t.Context(), lab.Config{Dir: damaged}); return err }, fault.Config},
		{"down nothing", func() error { return lab.Down(t.Context(), dir, true) }, fault.Other},
	} {
		if err := c.do(); fault.KindOf(err) != c.want || (err != nil && fault.HintOf(err) == "") {
			t.Errorf("%s: %v (kind %d, hint %q)", c.name, err, fault.KindOf(err), fault.HintOf(err))
		}
	}
	wantNothing(t, dir)
	if err := lab.Down(t.Context(), damaged, true); err != nil {
		t.Error(err)
	}
	wantNothing(t, damaged)
}

// Down removes what is the lab's by name, and leaves alone what is not.
func TestDownLeavesOthersFiles(t *testing.T) {
	l := up(t, 1)
	kept := []string{filepath.Join(l.Dir, "mine"), filepath.Join(l.Dir, "template", "debian")}
	for _, path := range kept {
		if err := os.Mkdir(path, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := lab.Down(t.Context(), l.Dir, true); err != nil {
		t.Fatal(err)
	}
	for _, path := range kept {
		if _, err := os.Stat(path); err != nil {
			t.Error(err)
		}
	}
	if err := os.Remove(kept[0]); err != nil {
		t.Fatal(err)
	}
	if err := l.Down(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(kept[1]); err != nil {
		t.Errorf("down took the templates: %v", err)
	}
	if err := lab.Down(t.Context(), l.Dir, true); err != nil {
		t.Fatal(err)
	}
	wantNothing(t, l.Dir)
}
