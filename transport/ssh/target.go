package ssh

import (
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vzkit/vzkit/internal/fault"
)

// Options are the client's own settings; they go before those of ssh_config.
// The zero value is the plain `ssh NAME`.
type Options struct {
	ConfigFile    string        // like ssh -F; "" is the user's and the system's, "none" is none
	Port          int           // like ssh -p
	User          string        // like ssh -l
	IdentityFiles []string      // like ssh -i, tried before those of ssh_config
	KnownHosts    []byte        // known_hosts lines to trust beside the files
	AgentSocket   string        // instead of IdentityAgent and SSH_AUTH_SOCK
	Timeout       time.Duration // for the whole of Dial; default ConnectTimeout, else 10 s
	KeepAlive     time.Duration // default ServerAliveInterval, else 2 s
	KeepAliveMax  int           // default ServerAliveCountMax, else 3
}

// Target is a host as Resolve found it, with everything Dial needs. Host is the
// name or address to connect to, without brackets; Name is what the user wrote.
type Target struct {
	Name, User, Host string
	Port             int

	origin string // host part of Name
	me     local

	network      string  // tcp, tcp4 or tcp6
	proxyCommand string  // with its tokens expanded
	jump         *Target // last element of ProxyJump

	keyAlias    string
	userFiles   []string // known_hosts, first one takes new keys
	globalFiles []string
	extraLines  []byte
	addNewKeys  bool
	hashNewKeys bool

	identityFiles  []identityFile
	certFiles      []string
	identitiesOnly bool
	agentSocket    string // "" is no agent
	forwardAgent   bool

	timeout      time.Duration
	keepAlive    time.Duration
	keepAliveMax int
}

// identityFile is a private key file to try. One that is a default of ssh may
// be absent without a word.
type identityFile struct {
	path      string
	isDefault bool
}

const (
	defaultTimeout      = 10 * time.Second
	defaultKeepAlive    = 2 * time.Second
	defaultKeepAliveMax = 3
	maxHops             = 8
)

// String returns user@host:port.
func (t *Target) String() string { return t.User + "@" + t.addr() }

func (t *Target) addr() string { return net.JoinHostPort(t.Host, strconv.Itoa(t.Port)) }

// Same reports whether both lead to the same port of the same host on the same
// way there, whoever logs in. Different names of one machine are not the same.
func (t *Target) Same(o *Target) bool {
	if t == nil || o == nil {
		return t == o
	}
	return strings.EqualFold(t.Host, o.Host) && t.Port == o.Port &&
		t.proxyCommand == o.proxyCommand && t.jump.Same(o.jump)
}

// Resolve finds out what `ssh NAME` would connect to. A name is HOST,
// USER@HOST, ssh://USER@HOST:PORT or [ADDRESS]:PORT, where HOST may be an alias
// of ssh_config. Nothing is contacted, unless ssh_config has ssh do it
// (CanonicalizeHostname, Match exec). Errors are fault.Usage for the name and
// the options, fault.Config for ssh_config.
func Resolve(destination string, o Options) (*Target, error) {
	n, err := parseName(destination)
	if err != nil {
		return nil, err
	}
	t, err := resolve(n, o, nil, 0)
	if err != nil {
		return nil, err
	}
	t.Name = destination
	return t, nil
}

func resolve(n name, o Options, over []override, depth int) (*Target, error) {
	if depth > maxHops {
		return nil, fault.New(fault.Config, "ProxyJump to %q goes in circles", n.host).
			WithHint("Write ProxyJump none in the Host block of the jump host itself.")
	}
	me, err := whoAmI()
	if err != nil {
		return nil, err
	}
	mine, err := overrides(n, o)
	if err != nil {
		return nil, err
	}
	lookupOptions := o
	if lookupOptions.Timeout <= 0 {
		lookupOptions.Timeout = defaultTimeout
	}
	s, err := lookup(n.host, me, lookupOptions, append(mine, over...))
	if err != nil {
		return nil, err
	}
	t := &Target{Name: n.host, origin: n.host, me: me, extraLines: o.KnownHosts}
	for _, step := range []func(settings, Options) error{
		t.setAddress, t.setHostKeys, t.setIdentities, t.setTimes,
	} {
		if err := step(s, o); err != nil {
			return nil, err
		}
	}
	return t, t.setRoute(s, o, depth)
}

// overrides turns the name and the options into settings. Options win.
func overrides(n name, o Options) ([]override, error) {
	var over []override
	if o.User != "" {
		n.user = o.User
	}
	if o.Port != 0 {
		n.port = o.Port
	}
	if n.user != "" {
		if err := n.check(n.user); err != nil {
			return nil, err
		}
		over = append(over, override{"user", n.user})
	}
	if n.port != 0 {
		if _, err := parsePort(strconv.Itoa(n.port)); err != nil {
			return nil, err
		}
		over = append(over, override{"port", strconv.Itoa(n.port)})
	}
	for _, f := range o.IdentityFiles {
		if strings.ContainsAny(f, "\"\n") || f == "" {
			return nil, fault.New(fault.Usage, "identity file name %q is not valid", f).
				WithHint("Name an existing private key file.")
		}
		over = append(over, override{"identityfile", strings.ReplaceAll(f, "%", "%%")})
	}
	return over, nil
}

func (t *Target) setAddress(s settings, _ Options) (err error) {
	t.User, t.Host = s.first("user"), strings.ToLower(s.first("hostname"))
	if t.Port, err = parsePort(s.first("port")); err != nil {
		return badSetting("Port", s.first("port"))
	}
	if t.User == "" || t.Host == "" {
		return badSetting("HostName or User of", t.origin)
	}
	switch family := s.first("addressfamily"); family {
	case "", "any":
		t.network = "tcp"
	case "inet":
		t.network = "tcp4"
	case "inet6":
		t.network = "tcp6"
	default:
		return badSetting("AddressFamily", family)
	}
	return nil
}

func (t *Target) setHostKeys(s settings, _ Options) error {
	isNone := func(f string) bool { return strings.EqualFold(f, "none") }
	t.keyAlias = s.first("hostkeyalias")
	t.userFiles = slices.DeleteFunc(s["userknownhostsfile"], isNone)
	t.globalFiles = slices.DeleteFunc(s["globalknownhostsfile"], isNone)
	t.hashNewKeys = s.yes("hashknownhosts")
	switch policy := strings.ToLower(s.first("stricthostkeychecking")); policy {
	case "accept-new", "no", "off", "false":
		t.addNewKeys = true
	case "", "ask", "yes", "true":
	default:
		return badSetting("StrictHostKeyChecking", policy)
	}
	return nil
}

func (t *Target) setIdentities(s settings, o Options) error {
	for _, f := range s["identityfile"] {
		if strings.EqualFold(f, "none") {
			continue
		}
		path, err := t.path(f)
		if err != nil {
			return err
		}
		t.identityFiles = append(t.identityFiles, identityFile{path, isDefaultKey(f)})
	}
	for _, f := range s["certificatefile"] {
		path, err := t.path(f)
		if err != nil {
			return err
		}
		t.certFiles = append(t.certFiles, path)
	}
	t.identitiesOnly = s.yes("identitiesonly")
	t.forwardAgent = s.yes("forwardagent")
	return t.setAgent(s, o)
}

// isDefaultKey tells names like those of ssh's built-in list, which grows from
// release to release and which ssh -G does not tell from configured ones.
func isDefaultKey(f string) bool {
	return strings.HasPrefix(f, "~/.ssh/id_") && filepath.Ext(f) == ""
}

func (t *Target) setAgent(s settings, o Options) (err error) {
	t.agentSocket = os.Getenv("SSH_AUTH_SOCK")
	configured := s["identityagent"]
	switch {
	case o.AgentSocket != "":
		t.agentSocket = o.AgentSocket
	case len(configured) == 0 || configured[0] == "SSH_AUTH_SOCK":
	case strings.EqualFold(configured[0], "none"):
		t.agentSocket = ""
	case strings.HasPrefix(configured[0], "$") && !strings.HasPrefix(configured[0], "${"):
		t.agentSocket = os.Getenv(configured[0][1:])
	default:
		t.agentSocket, err = t.path(configured[0])
	}
	return err
}

func (t *Target) setTimes(s settings, o Options) error {
	connect, err := s.seconds("connecttimeout")
	if err != nil {
		return err
	}
	alive, err := s.seconds("serveraliveinterval")
	if err != nil {
		return err
	}
	count := 0
	if v := s.first("serveralivecountmax"); v != "" {
		if count, err = strconv.Atoi(v); err != nil {
			return badSetting("ServerAliveCountMax", v)
		}
	}
	t.timeout = firstPositive(o.Timeout, connect, defaultTimeout)
	t.keepAlive = firstPositive(o.KeepAlive, alive, defaultKeepAlive)
	t.keepAliveMax = firstPositive(o.KeepAliveMax, count, defaultKeepAliveMax)
	return nil
}

func firstPositive[T int | time.Duration](values ...T) T {
	for _, v := range values {
		if v > 0 {
			return v
		}
	}
	return 0
}

// setRoute sets the way to the host. Of a ProxyJump list a,b,c the target's jump
// is c, whose own jump is b, as ssh nests its -J options.
func (t *Target) setRoute(s settings, o Options, depth int) (err error) {
	if hops := s.first("proxyjump"); hops != "" {
		before, last := "", hops
		if i := strings.LastIndexByte(hops, ','); i >= 0 {
			before, last = hops[:i], hops[i+1:]
		}
		n, err := parseHop(strings.TrimSpace(last))
		if err != nil {
			return badSetting("ProxyJump", hops)
		}
		var over []override
		if before != "" {
			over = []override{{"proxyjump", before}}
		}
		o.User, o.Port, o.IdentityFiles = "", 0, nil
		t.jump, err = resolve(n, o, over, depth+1)
		return err
	}
	command := s.first("proxycommand")
	if command == "" {
		return nil
	}
	if s.yes("proxyusefdpass") {
		return fault.New(fault.Config, "ProxyUseFdpass of %q is not supported", t.origin).
			WithHint("Use a ProxyCommand that copies data, or ProxyJump.")
	}
	t.proxyCommand, err = expand(command, t.tokens())
	return err
}

// Proxied reports whether the way to the host leads through a ProxyCommand or
// a ProxyJump of this machine's ssh_config.
func (t *Target) Proxied() bool { return t.proxyCommand != "" || t.jump != nil }
