// Package scripts tests the shell scripts beside it, on the machine itself.
package scripts

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vzkit/vzkit/internal/criu"
)

// run runs name with args and the extra environment env, and returns its exit
// code and all it printed.
func run(t *testing.T, env []string, name string, args ...string) (int, string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), string(out)
}

func ourCRIU(t *testing.T) string {
	t.Helper()
	path, err := criu.Find()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// The machine that setup refuses is this one, with other files mounted over
// those that setup looks at, in a mount namespace of its own.
var refusals = map[string]struct {
	pretend string // shell commands; $1 is an empty directory
	want    []string
}{
	"not root": {
		`set -- setpriv --reuid=65534 --regid=65534 --clear-groups`,
		[]string{"needs root"},
	},
	"kernel without checkpointing": {
		`mount -t tmpfs tmpfs /proc/sys/kernel
		mount -t tmpfs tmpfs /boot
		echo "# CONFIG_CHECKPOINT_RESTORE is not set" >"/boot/config-$(uname -r)"
		[ ! -e /proc/config.gz ] || mount --bind "/boot/config-$(uname -r)" /proc/config.gz
		set --`,
		[]string{"CONFIG_CHECKPOINT_RESTORE", "boot a kernel"},
	},
	"other distribution": {
		`printf 'ID=plan9\nPRETTY_NAME="Plan 9"\nVERSION_ID=4\n' >"$1/os-release"
		mount --bind "$1/os-release" /etc/os-release
		set --`,
		[]string{"Plan 9", "debootstrap", "libprotobuf-c-dev", "VZKIT_CRIU"},
	},
	"old Debian": {
		`printf 'ID=debian\nPRETTY_NAME="Debian 11"\nVERSION_ID=11\n' >"$1/os-release"
		mount --bind "$1/os-release" /etc/os-release
		set --`,
		[]string{"Debian 11", "Debian 12 and later"},
	},
	"no Go": {
		`PATH=/usr/sbin:/usr/bin:/sbin:/bin
		[ ! -e /usr/local/go ] || mount -t tmpfs tmpfs /usr/local/go
		[ ! -e /usr/bin/go ] || mount --bind /dev/null /usr/bin/go
		set --`,
		[]string{"Go is missing", "install Go 1."},
	},
	"Go that is too old": {
		`printf '#!/bin/sh\necho "go.mod requires a later go" >&2; exit 1\n' >"$1/go"
		chmod 755 "$1/go"
		PATH=$1:$PATH
		set --`,
		[]string{"or later is needed: go.mod requires"},
	},
}

func TestSetupRefusesWithoutSideEffect(t *testing.T) {
	for name, tc := range refusals {
		t.Run(name, func(t *testing.T) {
			prefix := filepath.Join(t.TempDir(), "prefix")
			script := "mount --make-rprivate / 2>/dev/null || :\n" + tc.pretend + "\nexec \"$@\" ./setup"
			code, out := run(t, []string{"VZKIT_PREFIX=" + prefix},
				"unshare", "--mount", "--propagation", "unchanged", "sh", "-euc", script, "sh", t.TempDir())
			if code != 2 {
				t.Errorf("exit code %d, want 2", code)
			}
			for _, want := range tc.want {
				if !strings.Contains(out, want) {
					t.Errorf("output %q does not hold %q", out, want)
				}
			}
			if _, err := os.Lstat(prefix); err == nil {
				t.Error("prefix was made in spite of the refusal")
			}
		})
	}
}

func TestSetupTestsCRIUOnce(t *testing.T) {
	env := []string{"VZKIT_PREFIX=" + t.TempDir(), "VZKIT_CRIU=" + ourCRIU(t)}
	code, out := run(t, env, "./setup")
	if code != 0 || !strings.Contains(out, "dump and restore") {
		t.Fatalf("first run: exit code %d, output %q", code, out)
	}
	if code, out := run(t, env, "./setup"); code != 0 || out != "" {
		t.Errorf("second run: exit code %d, output %q, want silence", code, out)
	}
}

func TestSetupRefusesBrokenCRIU(t *testing.T) {
	env := []string{"VZKIT_PREFIX=" + t.TempDir(), "VZKIT_CRIU=/bin/false"}
	code, out := run(t, env, "./setup")
	if code != 1 || !strings.Contains(out, "VZKIT_CRIU=/bin/false does not work") {
		t.Errorf("exit code %d, output %q", code, out)
	}
}

func TestSelftest(t *testing.T) {
	if code, out := run(t, nil, "./criu-selftest", ourCRIU(t)); code != 0 || out != "" {
		t.Errorf("CRIU in use: exit code %d, output %q", code, out)
	}
	if code, out := run(t, nil, "./criu-selftest", "/bin/false"); code != 1 || !strings.Contains(out, "check failed") {
		t.Errorf("/bin/false: exit code %d, output %q", code, out)
	}
	if left, _ := filepath.Glob("/tmp/vzkit-selftest.*"); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

func TestLeakcheckNamesWhatIsLeft(t *testing.T) {
	notes := filepath.Join(t.TempDir(), "notes")
	if code, out := run(t, nil, "./leakcheck", "before", notes); code != 0 {
		t.Fatalf("before: exit code %d, output %q", code, out)
	}
	leak, err := os.MkdirTemp("/tmp", "vzleak")
	if err != nil {
		t.Fatal(err)
	}
	defer os.Remove(leak)
	if code, out := run(t, nil, "./leakcheck", "after", notes); code != 1 || !strings.Contains(out, "file "+leak) {
		t.Errorf("after: exit code %d, output %q", code, out)
	}
}
