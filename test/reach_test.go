package test

import (
	"fmt"
	"strings"
	"testing"
)

// sshConfig writes an ssh_config on the host, for -F, and returns its path.
// Without host keys in knownHosts no host is known.
func (h host) sshConfig(t *testing.T, knownHosts string, lines ...string) string {
	t.Helper()
	dir := h.sh(t, "mktemp -d /run/ssh.XXXX")
	t.Cleanup(func() { h.sh(t, "rm -r %s", dir) })
	lines = append(lines, "IdentityFile ~/.ssh/id_ed25519", "User root",
		"UserKnownHostsFile "+dir+"/known_hosts", "GlobalKnownHostsFile /dev/null")
	h.write(t, dir+"/known_hosts", knownHosts)
	h.write(t, dir+"/config", strings.Join(lines, "\n")+"\n")
	return dir + "/config"
}

func (h host) write(t testing.TB, path, text string) {
	t.Helper()
	p := h.start(t, "sh", "-c", "cat >"+path)
	fmt.Fprint(p.stdin, text)
	p.wait().wants(t, 0)
}

// A destination that cannot be reached, from the source itself.
func TestUnreachable(t *testing.T) {
	t.Parallel()
	c := running(t, takePair(t))
	addr := c.dst.Addr().String()
	c.dst.sh(t, "nft 'add table ip deaf; add chain ip deaf in { type filter hook input priority 0; }; add rule ip deaf in tcp dport 2222 drop'")
	t.Cleanup(func() { c.dst.sh(t, "nft delete table ip deaf") })
	for _, r := range []struct {
		name, config, want string
	}{
		{"refused", "Port 2223", "connection refused"},
		{"deaf", "Port 2222\nConnectTimeout 2", "no answer in 2s"},
		{"nobody", "HostName 198.18.77.99\nConnectTimeout 2", "connect to 198.18.77.99:22: no "},
		{"no network", "HostName 203.0.113.1", "network is unreachable"},
	} {
		config := c.src.sshConfig(t, "", r.config, "HostName "+addr)
		o := c.src.run(t, "vzmigrate", "-F", config, c.dst.Name(), c.ctid())
		o.wants(t, 4, "vzmigrate: error: connect to ", r.want, "vzmigrate: hint: Check that ")
		c.stays(t)
	}
}

// A host that is not known is refused, with the line to add; with that line it
// is known. A host whose key is another one is refused with the place of the
// one that was expected.
func TestHostKeys(t *testing.T) {
	t.Parallel()
	c := running(t, takePair(t))
	dst := c.dst.Name()
	hostName := "HostName " + c.dst.Addr().String()
	unknown := c.src.run(t, "vzmigrate", "-F", c.src.sshConfig(t, "", hostName), dst, c.ctid())
	unknown.wants(t, 4, fmt.Sprintf("host key of %q is not known", c.dst.Addr()), "hint: ", "SHA256:", "add this line to ")
	c.stays(t)

	_, line, _ := strings.Cut(unknown.stderr, "add this line to ")
	_, line, _ = strings.Cut(line, ": ")
	other := c.src.sh(t, "grep '^%s,' ~/.ssh/known_hosts | cut -d' ' -f2-", c.src.Name())
	wrong := c.src.sshConfig(t, fmt.Sprintf("%s %s\n", c.dst.Addr(), other), hostName)
	c.src.run(t, "vzmigrate", "-F", wrong, dst, c.ctid()).wants(t, 4,
		fmt.Sprintf("host key of %q differs from ", c.dst.Addr()), "known_hosts:1", "hint: ")
	c.stays(t)

	c.src.run(t, "vzmigrate", "-F", c.src.sshConfig(t, line, hostName), dst, c.ctid()).wants(t, 0)
	c.moved(t)
}

// From a third machine, the host whose key is checked first is the source.
func TestSourceHostKey(t *testing.T) {
	t.Parallel()
	c := running(t, takePair(t))
	config := admin(t).sshConfig(t, "", "Match originalhost "+c.src.Name(), "HostName "+c.src.Addr().String())
	c.migrate(t, "-F", config).wants(t, 4, "is not known", "add this line to ")
	c.stays(t)
}

// Names are those of ssh_config: aliases, users, ports.
func TestAliases(t *testing.T) {
	t.Parallel()
	c := running(t, takePair(t))
	known := admin(t).sh(t, "cat ~/.ssh/known_hosts") + "\n"
	config := admin(t).sshConfig(t, known,
		"Host here", "HostName "+c.src.Addr().String(), "Host there", "HostName "+c.dst.Addr().String(),
		"Host also-here", "HostName "+c.src.Addr6().String(), "Host *")
	admin(t).run(t, "vzmigrate", "-F", config, "here", "also-here", c.ctid()).wants(t, 34, "are the same host")
	c.stays(t)
	report := decode(t, admin(t).run(t, "vzmigrate", "--json", "-F", config, "here", "there", c.ctid()))
	if report.Source != "here" || report.Destination != "there" {
		t.Errorf("report names %q and %q", report.Source, report.Destination)
	}
	c.moved(t)
}
