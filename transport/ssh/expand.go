package ssh

import (
	"os"
	"os/user"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/vzkit/vzkit/internal/fault"
)

// local is the user who runs the client, from the passwd database.
type local struct{ user, uid, home string }

func whoAmI() (local, error) {
	u, err := user.Current()
	if err != nil {
		return local{}, fault.New(fault.Config, "look up own user: %w", err)
	}
	return local{u.Username, u.Uid, u.HomeDir}, nil
}

// tokens are the values of %x (ssh_config(5), TOKENS).
type tokens map[byte]string

func (t *Target) tokens() tokens {
	host, err := os.Hostname()
	if err != nil {
		host = "localhost"
	}
	short, _, _ := strings.Cut(host, ".")
	return tokens{
		'd': t.me.home, 'h': t.Host, 'i': t.me.uid, 'k': t.keyName(), 'L': short, 'l': host,
		'n': t.origin, 'p': strconv.Itoa(t.Port), 'r': t.User, 'u': t.me.user,
	}
}

// expand replaces the tokens in s; %% is a percent sign.
func expand(s string, values tokens) (string, error) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			b.WriteByte(s[i])
			continue
		}
		i++
		switch {
		case i < len(s) && s[i] == '%':
			b.WriteByte('%')
		case i < len(s) && values[s[i]] != "":
			b.WriteString(values[s[i]])
		default:
			return "", badSetting("token in", s)
		}
	}
	return b.String(), nil
}

var envRef = regexp.MustCompile(`\$\{[^}]*\}`)

// path expands ~, tokens and ${VARIABLE} in a file name.
func (t *Target) path(s string) (string, error) {
	s, err := t.tilde(s)
	if err != nil {
		return "", err
	}
	if s, err = expand(s, t.tokens()); err != nil {
		return "", err
	}
	s = envRef.ReplaceAllStringFunc(s, func(ref string) string {
		value, ok := os.LookupEnv(ref[2 : len(ref)-1])
		if !ok {
			err = badSetting("variable in", s)
		}
		return value
	})
	return s, err
}

func (t *Target) tilde(s string) (string, error) {
	if !strings.HasPrefix(s, "~") {
		return s, nil
	}
	name, rest, _ := strings.Cut(s[1:], "/")
	home := t.me.home
	if name != "" {
		u, err := user.Lookup(name)
		if err != nil {
			return "", badSetting("path", s)
		}
		home = u.HomeDir
	}
	return filepath.Join(home, rest), nil
}
