package ssh

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/kevinburke/ssh_config"

	"github.com/vzkit/vzkit/internal/fault"
)

// settings are the values in force for one host by lower-case keyword. The
// keywords are those of keywords below; user, hostname and port are always set.
type settings map[string][]string

// override is a setting that goes before all files, like an -o option of ssh.
type override struct{ key, value string }

// keywords are the ones that readConfig looks for; true for those that add up
// instead of the first winning.
var keywords = map[string]bool{
	"addressfamily": false, "certificatefile": true, "connecttimeout": false,
	"forwardagent": false, "globalknownhostsfile": false, "hashknownhosts": false,
	"hostkeyalias": false, "hostname": false, "identitiesonly": false,
	"identityagent": false, "identityfile": true, "port": false, "proxycommand": false,
	"proxyjump": false, "proxyusefdpass": false, "serveralivecountmax": false,
	"serveraliveinterval": false, "stricthostkeychecking": false, "user": false,
	"userknownhostsfile": false,
}

// defaultKeys are the identity files that ssh tries if none is named and that
// this package can use.
var defaultKeys = []string{"~/.ssh/id_rsa", "~/.ssh/id_ecdsa", "~/.ssh/id_ed25519"}

// first returns the first value of key; "none" counts as unset.
func (s settings) first(key string) string {
	if v := s[key]; len(v) > 0 && !strings.EqualFold(v[0], "none") {
		return v[0]
	}
	return ""
}

func (s settings) yes(key string) bool {
	v := strings.ToLower(s.first(key))
	return v == "yes" || v == "true"
}

// seconds reads a time in seconds, or with units ("1m"), zero if unset.
func (s settings) seconds(key string) (time.Duration, error) {
	v := s.first(key)
	if v == "" {
		return 0, nil
	}
	if n, err := strconv.ParseUint(v, 10, 31); err == nil {
		return time.Duration(n) * time.Second, nil
	}
	d, err := time.ParseDuration(v)
	if err != nil || d < 0 {
		return 0, badSetting(key, v)
	}
	return d, nil
}

func badSetting(key, value string) error {
	return fault.New(fault.Config, "ssh_config %s %q is not valid", key, value).
		WithHint("Correct it in ~/.ssh/config or /etc/ssh/ssh_config.")
}

// lookup returns what ssh would use for host.
func lookup(host string, me local, o Options, over []override) (settings, error) {
	ssh, err := exec.LookPath("ssh")
	if err != nil {
		return readConfig(host, me, o.ConfigFile, over)
	}
	return askOpenSSH(ssh, host, o, over)
}

// askOpenSSH runs `ssh -G` (ssh(1)), which prints one "keyword value" a line.
func askOpenSSH(ssh, host string, o Options, over []override) (settings, error) {
	args := []string{"-G", "-T"}
	if o.ConfigFile != "" {
		args = append(args, "-F", o.ConfigFile)
	}
	for _, v := range over {
		if v.key == "identityfile" {
			v.value = `"` + v.value + `"`
		}
		args = append(args, "-o", v.key+"="+v.value)
	}
	ctx, cancel := context.WithTimeout(context.Background(), o.Timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, ssh, append(args, "--", host)...)
	cmd.WaitDelay = time.Second
	var problem bytes.Buffer
	cmd.Stderr = &problem
	out, err := cmd.Output()
	if err != nil {
		return nil, fault.New(fault.Config, "ssh_config for %q: %w: %s", host, err, oneLine(problem.String())).
			WithHint("Correct what the message names; `ssh -G %s` shows it too.", host)
	}
	s := settings{}
	for line := range strings.Lines(string(out)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		s[key] = append(s[key], value)
	}
	for _, key := range []string{"userknownhostsfile", "globalknownhostsfile"} {
		s[key] = strings.Fields(strings.Join(s[key], " "))
	}
	return s, nil
}

// oneLine makes one line of a program's message.
func oneLine(s string) string { return strings.Join(strings.FieldsFunc(s, isNewline), "; ") }

func isNewline(r rune) bool { return r == '\n' || r == '\r' }

// readConfig does without an OpenSSH client what askOpenSSH does with one.
func readConfig(host string, me local, file string, over []override) (settings, error) {
	layers, err := parseFiles(me, file)
	if err != nil {
		return nil, err
	}
	s := settings{}
	for _, v := range over {
		s[v.key] = append(s[v.key], v.value)
	}
	for key, addsUp := range keywords {
		for _, layer := range layers {
			values, err := layer.GetAll(host, key)
			if err != nil {
				return nil, fault.New(fault.Config, "ssh_config for %q: %w", host, err)
			}
			s[key] = append(s[key], values...)
		}
		if !addsUp && len(s[key]) > 1 {
			s[key] = s[key][:1]
		}
	}
	return s, s.complete(host, me)
}

// parseFiles reads file, or the user's and the system's configuration if file
// is "". Like for ssh, "none" is no file at all.
func parseFiles(me local, file string) ([]*ssh_config.Config, error) {
	files := []string{filepath.Join(me.home, ".ssh", "config"), "/etc/ssh/ssh_config"}
	switch {
	case strings.EqualFold(file, "none"):
		return nil, nil
	case file != "":
		files = []string{file}
	}
	var layers []*ssh_config.Config
	for _, f := range files {
		b, err := os.ReadFile(f)
		if errors.Is(err, os.ErrNotExist) && file == "" {
			continue
		}
		if err != nil {
			return nil, fault.New(fault.Config, "read ssh_config: %w", err)
		}
		c, err := ssh_config.DecodeBytes(b)
		if err != nil {
			return nil, fault.New(fault.Config, "parse %q: %w", f, err).
				WithHint("Install the OpenSSH client (package openssh-client), which understands all of ssh_config.")
		}
		layers = append(layers, c)
	}
	return layers, nil
}

// complete fills in the defaults of ssh_config(5) and expands the tokens that
// ssh -G would have expanded.
func (s settings) complete(host string, me local) error {
	def := func(key string, values ...string) {
		if len(s[key]) == 0 {
			s[key] = values
		}
	}
	def("hostname", host)
	def("port", "22")
	def("user", me.user)
	def("identityfile", defaultKeys...)
	def("userknownhostsfile", "~/.ssh/known_hosts ~/.ssh/known_hosts2")
	def("globalknownhostsfile", "/etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2")
	name, err := expand(s.first("hostname"), tokens{'h': host})
	if err != nil {
		return err
	}
	s["hostname"] = []string{name}
	t := &Target{User: s.first("user"), Host: strings.ToLower(name), origin: host, me: me}
	if t.Port, err = parsePort(s.first("port")); err != nil {
		return badSetting("Port", s.first("port"))
	}
	for _, key := range []string{"userknownhostsfile", "globalknownhostsfile"} {
		files := words(s.first(key))
		for i := range files {
			if files[i], err = t.path(files[i]); err != nil {
				return err
			}
		}
		s[key] = files
	}
	return nil
}

// words splits a value at spaces outside double quotes.
func words(s string) []string {
	quoted := false
	split := func(r rune) bool {
		if r == '"' {
			quoted = !quoted
		}
		return r == '"' || !quoted && (r == ' ' || r == '\t')
	}
	return strings.FieldsFunc(s, split)
}
