package lab

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/vzkit/vzkit/internal/fault"
)

// rootHome is root's home directory, which the hosts share but for ~/.ssh.
func rootHome() string {
	if u, err := user.LookupId("0"); err == nil && u.HomeDir != "" {
		return u.HomeDir
	}
	return "/root"
}

func sshdPath() (string, error) {
	for _, path := range []string{"/usr/sbin/sshd", "/usr/local/sbin/sshd", "sshd"} {
		if found, err := exec.LookPath(path); err == nil {
			return found, nil
		}
	}
	return "", fault.New(fault.NoEngine, "no sshd on this machine").WithHint("Install the package openssh-server.")
}

// writeSSH makes root's ~/.ssh as all hosts see it, and each host's key.
func (l *Lab) writeSSH() error {
	login, err := ensureKey(l.path("ssh", "id_ed25519"))
	if err != nil {
		return err
	}
	authorized := ssh.MarshalAuthorizedKey(login)
	var known, config bytes.Buffer
	for _, h := range l.Hosts() {
		key, err := ensureKey(h.path("ssh_host_ed25519_key"))
		if err != nil {
			return err
		}
		fmt.Fprintf(&known, "%s,%s,%s %s", h.name, h.Addr(), h.Addr6(), ssh.MarshalAuthorizedKey(key))
		fmt.Fprintf(&config, "Host %s\n\tHostName %s\n\tUser root\n\tIdentityFile ~/.ssh/id_ed25519\n", h.name, h.Addr())
	}
	return errors.Join(
		os.Chmod(l.path("ssh"), 0o700),
		writeFile(l.path("ssh", "id_ed25519.pub"), authorized, 0o644),
		writeFile(l.path("ssh", "authorized_keys"), authorized, 0o600),
		writeFile(l.path("ssh", "known_hosts"), known.Bytes(), 0o600),
		writeFile(l.path("ssh", "config"), config.Bytes(), 0o600),
	)
}

// ensureKey returns the public half of the key pair in the file, which it
// makes if there is none.
func ensureKey(path string) (ssh.PublicKey, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		text, err = makeKey(path)
	}
	if err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	signer, err := ssh.ParsePrivateKey(text)
	if err != nil {
		return nil, fmt.Errorf("key %q: %w", path, err)
	}
	return signer.PublicKey(), nil
}

func makeKey(path string) ([]byte, error) {
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		return nil, err
	}
	block, err := ssh.MarshalPrivateKey(private, "vzlab")
	if err != nil {
		return nil, err
	}
	text := pem.EncodeToMemory(block)
	return text, writeFile(path, text, 0o600)
}

// sshdConfig is the host's sshd_config(5), and what its sshd calls itself at
// the end of its greeting when it has read just that.
func (h *Host) sshdConfig() (text, version string) {
	text = strings.Join([]string{
		"ListenAddress " + h.Addr().String(),
		"ListenAddress " + h.Addr6().String(),
		fmt.Sprintf("HostKey %q", h.path("ssh_host_ed25519_key")),
		fmt.Sprintf("AuthorizedKeysFile %q", h.lab.path("ssh", "authorized_keys")),
		// Bash takes a shell at level 2 for no login by sshd, and lets root's
		// ~/.bashrc alone, which is the machine's and may do anything.
		fmt.Sprintf("SetEnv %q SHLVL=1", "PATH="+hostPath(h.lab.Bin)),
		"UsePAM " + yesNo(rootLocked()),
		"PermitRootLogin prohibit-password",
		"PasswordAuthentication no",
		"KbdInteractiveAuthentication no",
		"StrictModes no",
		"AllowAgentForwarding yes",
		"AcceptEnv LANG LC_*",
		"PidFile none",
		"PrintMotd no",
		"PrintLastLog no",
		"MaxStartups 100",
		"MaxSessions 100",
		"LogLevel ERROR",
		"Subsystem sftp internal-sftp",
	}, "\n")
	version = fmt.Sprintf("vzlab-%.4x", sha256.Sum256([]byte(text)))
	return text + "\nVersionAddendum " + version + "\n", version
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// rootLocked tells whether root's password is locked, which only an sshd with
// PAM puts up with (sshd(8), "login process").
func rootLocked() bool {
	shadow, _ := os.ReadFile("/etc/shadow")
	for line := range strings.Lines(string(shadow)) {
		if password, found := strings.CutPrefix(line, "root:"); found {
			return strings.HasPrefix(password, "!")
		}
	}
	return false
}

// SSHConfig is an ssh_config(5) with which ssh on the machine itself reaches
// the hosts by their names. It goes through the program vzlab in l.Bin.
func (l *Lab) SSHConfig() string {
	connect := shellQuote(l.Bin+"/vzlab") + " connect %n"
	if l.Dir != DefaultDir {
		connect = shellQuote(l.Bin+"/vzlab") + " --dir " + shellQuote(l.Dir) + " connect %n"
	}
	var b strings.Builder
	for _, h := range l.Hosts() {
		fmt.Fprintf(&b, "Host %s\n\tHostKeyAlias %[1]s\n\tUser root\n\tIdentitiesOnly yes\n", h.name)
		fmt.Fprintf(&b, "\tIdentityFile %q\n\tUserKnownHostsFile %q\n", l.path("ssh", "id_ed25519"), l.path("ssh", "known_hosts"))
		fmt.Fprintf(&b, "\tStrictHostKeyChecking yes\n\tProxyCommand %s\n", connect)
	}
	return b.String()
}

// shellQuote quotes a word for sh, and for ssh_config's own % tokens.
func shellQuote(s string) string {
	return "'" + strings.NewReplacer("'", `'\''`, "%", "%%").Replace(s) + "'"
}
