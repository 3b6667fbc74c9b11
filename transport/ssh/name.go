package ssh

import (
	"net/url"
	"strconv"
	"strings"
	"unicode"

	"github.com/vzkit/vzkit/internal/fault"
)

// maxName is the longest host name that getaddrinfo takes (NI_MAXHOST).
const maxName = 1025

// name is a destination as a user writes it. Port 0 and user "" are unset.
type name struct {
	user, host string
	port       int
}

// parseName splits a destination argument: host, user@host, [v6]:port or an
// ssh:// URI. It refuses what ssh refuses, because host and user end up in
// shell commands (ProxyCommand) and file names.
func parseName(s string) (name, error) {
	if strings.HasPrefix(s, "ssh://") {
		return parseURI(s)
	}
	n := name{host: s}
	if i := strings.LastIndexByte(s, '@'); i >= 0 {
		n.user, n.host = s[:i], s[i+1:]
		if n.user == "" {
			return n, badName(s)
		}
	}
	if err := n.unbracket(); err != nil {
		return n, err
	}
	return n, n.check(s)
}

// unbracket takes [host] and [host]:port apart. A bracket left over is for
// check to refuse.
func (n *name) unbracket() (err error) {
	host, rest, ok := strings.Cut(strings.TrimPrefix(n.host, "["), "]")
	if !ok || n.host[0] != '[' {
		return nil
	}
	switch port, hasPort := strings.CutPrefix(rest, ":"); {
	case hasPort:
		n.port, err = parsePort(port)
	case rest != "":
		return nil
	}
	n.host = host
	return err
}

// parseHop splits one element of a ProxyJump list: [user@]host[:port] or a URI.
func parseHop(s string) (name, error) {
	if !strings.HasPrefix(s, "ssh://") {
		s = "ssh://" + s
	}
	return parseURI(s)
}

func parseURI(s string) (name, error) {
	u, err := url.Parse(s)
	if err != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return name{}, badName(s)
	}
	n := name{host: u.Hostname()}
	if u.User != nil {
		n.user, _, _ = strings.Cut(u.User.Username(), ";")
		if _, has := u.User.Password(); has || n.user == "" {
			return n, badName(s)
		}
	}
	if p := u.Port(); p != "" {
		if n.port, err = parsePort(p); err != nil {
			return n, err
		}
	}
	return n, n.check(s)
}

// check applies the rules of OpenSSH's valid_hostname and valid_ruser.
func (n name) check(whole string) error {
	bad := func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }
	switch {
	case n.host == "", len(n.host) > maxName, n.host[0] == '-', strings.HasPrefix(n.user, "-"),
		strings.ContainsFunc(n.host+n.user, bad),
		strings.ContainsAny(n.host, "'`\"$\\;&<>|(){}[]"),
		strings.ContainsAny(n.user, "'`\";&<>|(){}"), strings.HasSuffix(n.user, `\`):
		return badName(whole)
	}
	return nil
}

func badName(s string) error {
	return fault.New(fault.Usage, "host name %q is not valid", s).
		WithHint("Write HOST, USER@HOST or ssh://USER@HOST:PORT, or a Host alias of ssh_config.")
}

func parsePort(s string) (int, error) {
	p, err := strconv.Atoi(s)
	if err != nil || p < 1 || p > 65535 {
		return 0, fault.New(fault.Usage, "port %q is not valid", s).WithHint("Ports are 1 to 65535.")
	}
	return p, nil
}
