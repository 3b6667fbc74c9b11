package lab_test

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestProgram(t *testing.T) {
	l := up(t, 1)
	for _, c := range []struct {
		args   string
		status int
		out    string // contained in what is printed
	}{
		{"up 1", 0, "alpha    198.18.77.11  ready\n"},
		{"status", 0, "admin    198.18.77.2   fd00:77::2"},
		{"exec alpha -- hostname", 0, "alpha\n"},
		{"exec alpha hostname", 0, "alpha\n"},
		{"exec alpha -- ls -d /run/sshd", 0, "/run/sshd\n"},
		{"exec alpha -- sh -c exit\t5", 5, ""},
		{"exec alpha -- nothing-of-that-name", 127, "not found"},
		{"exec alpha --", 20, "vzlab: hint: "},
		{"exec nemo -- true", 21, `no lab host "nemo"`},
		{"exec alpha -- vzlab up", 21, "this is a host of the lab"},
		{"exec alpha -- vzlab down", 21, "vzlab: hint: Run vzlab on the machine itself."},
		{"connect nemo", 21, `no lab host "nemo"`},
		{"reboot nemo", 21, `no lab host "nemo"`},
		{"up many", 21, `"many"`},
		{"up 9", 21, "out of range"},
		{"up 1 2", 20, "vzlab: hint: vzlab --help shows how it is used."},
		{"upp", 20, "unknown command"},
		{"status --bogus", 20, "unknown flag"},
	} {
		args := strings.Fields(c.args)
		for i := range args {
			args[i] = strings.ReplaceAll(args[i], "exit", "exit 5")
		}
		if strings.Contains(c.args, "\t") {
			args = args[:len(args)-1]
		}
		cmd := vzlab(t, l.Bin, l.Dir, args...)
		cmd.Stderr = nil
		out, err := cmd.CombinedOutput()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
		if got := cmd.ProcessState.ExitCode(); got != c.status || !strings.Contains(string(out), c.out) {
			t.Errorf("vzlab %s: status %d, want %d:\n%s", c.args, got, c.status, out)
		}
	}
}

func TestProgramStatusJSON(t *testing.T) {
	l := up(t, 1)
	out, err := vzlab(t, l.Bin, l.Dir, "status", "-j").Output()
	if err != nil {
		t.Fatal(err)
	}
	var hosts []struct {
		Name, Addr, Addr6 string
		Pid               int
		Running           bool
	}
	if err := json.Unmarshal(out, &hosts); err != nil {
		t.Fatal(err)
	}
	if len(hosts) != 2 || hosts[0].Name != "alpha" || hosts[0].Addr != "198.18.77.11" ||
		hosts[0].Addr6 != "fd00:77::11" || !hosts[0].Running || hosts[0].Pid != host(t, l, "alpha").Pid() {
		t.Errorf("status %s", out)
	}
}

func TestProgramWithoutLab(t *testing.T) {
	bin, dir := binDir(t), filepath.Join(t.TempDir(), "lab")
	for _, args := range [][]string{{"status"}, {"exec", "alpha", "--", "true"}, {"ssh-config"}, {"connect", "alpha"}, {"reboot", "alpha"}} {
		cmd := vzlab(t, bin, dir, args...)
		cmd.Stderr = nil
		out, _ := cmd.CombinedOutput()
		if cmd.ProcessState.ExitCode() != 31 || !strings.Contains(string(out), "vzlab up") {
			t.Errorf("vzlab %q: %v:\n%s", args, cmd.ProcessState, out)
		}
	}
	if err := vzlab(t, bin, dir, "down").Run(); err != nil {
		t.Errorf("down: %v", err)
	}
	wantNothing(t, dir)
}

// From the machine itself, which is in none of the lab's networks, ssh gets in
// with the configuration that vzlab prints.
func TestProgramSSHConfig(t *testing.T) {
	l := up(t, 1)
	out, err := vzlab(t, l.Bin, l.Dir, "ssh-config").Output()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "ssh_config")
	if err := os.WriteFile(file, out, 0o600); err != nil {
		t.Fatal(err)
	}
	ssh := exec.CommandContext(t.Context(), "ssh", "-F", file, "-o", "BatchMode=yes", "alpha", "hostname; cat")
	ssh.Stdin = strings.NewReader(strings.Repeat("x", 1<<20))
	got, err := ssh.Output()
	if err != nil || !strings.HasPrefix(string(got), "alpha\nxxx") || len(got) != 6+1<<20 {
		t.Errorf("ssh: %d bytes, %v", len(got), err)
	}
}

// The program is a command's stand-in: it passes on signals, and takes the
// command with it when it is killed.
func TestProgramExecSignals(t *testing.T) {
	l := up(t, 1)
	script := "trap 'exit 7' TERM; echo $$; while :; do sleep 0.01; done"
	for _, c := range []struct {
		signal syscall.Signal
		status int
	}{{syscall.SIGTERM, 7}, {syscall.SIGKILL, -1}} {
		cmd := vzlab(t, l.Bin, l.Dir, "exec", "alpha", "--", "sh", "-c", script)
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
		if err := cmd.Process.Signal(c.signal); err != nil {
			t.Fatal(err)
		}
		if _ = cmd.Wait(); cmd.ProcessState.ExitCode() != c.status {
			t.Errorf("after %v: %v", c.signal, cmd.ProcessState)
		}
		eventually(t, "command to go", func() bool {
			return host(t, l, "alpha").Command(t.Context(), "sh", "-c", "kill -0 "+string(line[:n])).Run() != nil
		})
	}
}
