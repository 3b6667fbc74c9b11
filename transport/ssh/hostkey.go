package ssh

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/skeema/knownhosts"
	xssh "golang.org/x/crypto/ssh"
	xknownhosts "golang.org/x/crypto/ssh/knownhosts"
	"golang.org/x/sys/unix"

	"github.com/vzkit/vzkit/internal/fault"
)

// hostKeyAlgorithms is OpenSSH's order of preference for hosts that are not
// known yet.
var hostKeyAlgorithms = []string{
	xssh.KeyAlgoED25519, xssh.KeyAlgoECDSA256, xssh.KeyAlgoECDSA384, xssh.KeyAlgoECDSA521,
	xssh.KeyAlgoRSASHA512, xssh.KeyAlgoRSASHA256,
}

// knownKeys are the known_hosts lines in force for a target. All files are read
// as one, so line n of db is what lines[n-1] says.
type knownKeys struct {
	t     *Target
	db    *knownhosts.HostKeyDB
	lines []knownLine
}

type knownLine struct {
	file   string
	number int
	text   string
}

// keyName is what the host is called in known_hosts, without the port.
func (t *Target) keyName() string {
	if t.keyAlias != "" {
		return t.keyAlias
	}
	return t.Host
}

// keyAddrs are the host:port pairs under which known_hosts may have the host.
// The first is the proper one. A key under the bare name is good for every
// port, but a different one there says nothing (OpenSSH's check_host_key).
func (t *Target) keyAddrs() []string {
	bare := net.JoinHostPort(t.keyName(), "22")
	if t.keyAlias != "" || t.Port == 22 {
		return []string{bare}
	}
	return []string{t.addr(), bare}
}

// KnownHostsLines returns the lines of the known_hosts files that speak of the
// target, revoked keys included, with the host in plain form: no hashes, no
// patterns. Another host that connects for us takes them as
// Options.KnownHosts. There are none if the host is unknown.
func (t *Target) KnownHostsLines() ([]byte, error) {
	k, err := t.knownKeys()
	if err != nil {
		return nil, err
	}
	names := []string{t.addr()}
	if t.keyAlias != "" {
		names = append(names, t.keyAlias)
	}
	var out []string
	for _, key := range k.keys() {
		line := xknownhosts.Line(names, key)
		if key.Cert {
			line = "@cert-authority " + line
		}
		out = append(out, line+"\n")
	}
	for _, l := range k.lines {
		if marker, _, key, _, _, err := xssh.ParseKnownHosts([]byte(l.text)); err == nil && marker == "revoked" {
			out = append(out, "@revoked "+xknownhosts.Line(names, key)+"\n")
		}
	}
	slices.Sort(out)
	return []byte(strings.Join(slices.Compact(out), "")), nil
}

func (t *Target) knownKeys() (*knownKeys, error) {
	k := &knownKeys{t: t}
	k.add("given known_hosts lines", t.extraLines)
	for _, f := range slices.Concat(t.userFiles, t.globalFiles) {
		b, err := os.ReadFile(f)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, fault.New(fault.Connect, "read known_hosts: %w", err)
		}
		k.add(f, b)
	}
	return k, k.parse()
}

func (k *knownKeys) add(file string, b []byte) {
	number := 0
	for line := range strings.Lines(string(b)) {
		number++
		k.lines = append(k.lines, knownLine{file, number, strings.TrimSpace(line)})
	}
}

// parse builds the database. The parser gives up at the first broken line, ssh
// skips it; so on an error each line is tried by itself.
func (k *knownKeys) parse() (err error) {
	if k.db, err = parseKnownHosts(k.lines); err == nil {
		return nil
	}
	k.lines = slices.DeleteFunc(k.lines, func(l knownLine) bool {
		_, err := parseKnownHosts([]knownLine{l})
		return err != nil
	})
	k.db, err = parseKnownHosts(k.lines)
	return fault.Wrap(fault.Connect, err)
}

// parseKnownHosts passes lines to the parser, which reads files only, through a
// file in memory (memfd_create(2)).
func parseKnownHosts(lines []knownLine) (*knownhosts.HostKeyDB, error) {
	fd, err := unix.MemfdCreate("known_hosts", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	f := os.NewFile(uintptr(fd), "known_hosts")
	defer f.Close()
	var b bytes.Buffer
	for _, l := range lines {
		b.WriteString(l.text + "\n")
	}
	if _, err := f.Write(b.Bytes()); err != nil {
		return nil, fmt.Errorf("write known_hosts copy: %w", err)
	}
	return knownhosts.NewDB(fmt.Sprintf("/proc/self/fd/%d", fd))
}

// keys returns the keys that are good for the target.
func (k *knownKeys) keys() (keys []knownhosts.PublicKey) {
	for _, addr := range k.t.keyAddrs() {
		keys = append(keys, k.db.HostKeys(addr)...)
	}
	return keys
}

// algorithms are the host key algorithms to offer, first those of known keys,
// so that the server does not show a key of another type. An authority may have
// signed a key of any type.
func (k *knownKeys) algorithms() []string {
	supported := xssh.SupportedAlgorithms().HostKeys
	var list []string
	for _, key := range k.keys() {
		if key.Cert {
			list = append(list, slices.DeleteFunc(slices.Clone(supported), isPlainAlgorithm)...)
		}
	}
	for _, addr := range k.t.keyAddrs() {
		list = append(list, k.db.HostKeyAlgorithms(addr)...)
	}
	list = append(list, hostKeyAlgorithms...)
	var out []string
	for _, a := range list {
		if slices.Contains(supported, a) && !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	return out
}

func isPlainAlgorithm(a string) bool { return !strings.Contains(a, "-cert-v01@") }

// check judges the key that the server has proved to own.
func (k *knownKeys) check(key xssh.PublicKey) error {
	anywhere := &net.TCPAddr{IP: net.IPv4zero} // only names count
	callback := k.db.HostKeyCallback()
	addrs := k.t.keyAddrs()
	first := callback(addrs[0], anywhere, key)
	if first == nil {
		return nil
	}
	var revoked *xknownhosts.RevokedError
	var wrong *xknownhosts.KeyError
	switch {
	case errors.As(first, &revoked):
		return k.revoked(revoked.Revoked)
	case !errors.As(first, &wrong):
		return fault.New(fault.Connect, "host key of %q: %w", k.t.keyName(), first).
			WithHint("Check the @cert-authority and @revoked lines in %s.", k.files())
	case len(k.plain(wrong.Want)) > 0:
		return k.changed(k.plain(wrong.Want), key)
	case len(addrs) > 1 && callback(addrs[1], anywhere, key) == nil:
		return nil
	case k.t.addNewKeys:
		return k.remember(key)
	}
	return k.unknown(key)
}

// plain drops the keys of authorities: a host without a certificate is unknown
// to them rather than changed.
func (k *knownKeys) plain(keys []xknownhosts.KnownKey) []xknownhosts.KnownKey {
	return slices.DeleteFunc(slices.Clone(keys), func(key xknownhosts.KnownKey) bool {
		return strings.HasPrefix(k.lines[key.Line-1].text, "@cert-authority")
	})
}

func (k *knownKeys) files() string {
	if len(k.t.userFiles) == 0 {
		return "the known_hosts file"
	}
	return k.t.userFiles[0]
}

func (k *knownKeys) where(key xknownhosts.KnownKey) string {
	l := k.lines[key.Line-1]
	return fmt.Sprintf("%s:%d", l.file, l.number)
}

func (k *knownKeys) line(key xssh.PublicKey) string {
	return xknownhosts.Line(k.t.keyAddrs()[:1], key)
}

func (k *knownKeys) unknown(key xssh.PublicKey) error {
	return fault.New(fault.Connect, "host key of %q is not known", k.t.keyName()).
		WithHint("If the host's own `ssh-keygen -lf /etc/ssh/ssh_host_%s_key.pub` shows %s, add this line to %s: %s",
			shortType(key), xssh.FingerprintSHA256(key), k.files(), k.line(key))
}

// shortType is the key type as sshd names its key files.
func shortType(key xssh.PublicKey) string {
	switch t := key.Type(); {
	case strings.HasPrefix(t, "ecdsa-"):
		return "ecdsa"
	default:
		return strings.TrimPrefix(t, "ssh-")
	}
}

func (k *knownKeys) changed(want []xknownhosts.KnownKey, key xssh.PublicKey) error {
	place := k.where(want[0])
	for _, w := range want {
		if w.Key.Type() == key.Type() {
			place = k.where(w)
		}
	}
	return fault.New(fault.Connect, "host key of %q differs from %s", k.t.keyName(), place).
		WithHint("Someone may be intercepting the connection. Only if the host was reinstalled, replace line %s by: %s",
			place, k.line(key))
}

func (k *knownKeys) revoked(key xknownhosts.KnownKey) error {
	return fault.New(fault.Connect, "host key of %q is revoked by %s", k.t.keyName(), k.where(key)).
		WithHint("Do not connect before the host has a new key.")
}

// remember appends the key to the first known_hosts file, as ssh does with
// StrictHostKeyChecking accept-new and no.
func (k *knownKeys) remember(key xssh.PublicKey) error {
	if len(k.t.userFiles) == 0 {
		return nil
	}
	file := k.t.userFiles[0]
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return fault.New(fault.Connect, "make known_hosts directory: %w", err)
	}
	line := k.line(key)
	if k.t.hashNewKeys {
		host, rest, _ := strings.Cut(line, " ")
		line = xknownhosts.HashHostname(host) + " " + rest
	}
	if b, err := os.ReadFile(file); err == nil && len(b) > 0 && b[len(b)-1] != '\n' {
		line = "\n" + line
	}
	f, err := os.OpenFile(file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fault.New(fault.Connect, "open known_hosts: %w", err)
	}
	_, err = f.WriteString(line + "\n")
	if err := errors.Join(err, f.Close()); err != nil {
		return fault.New(fault.Connect, "write known_hosts: %w", err)
	}
	return nil
}
