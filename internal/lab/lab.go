// Package lab makes hosts on one machine: namespaces that have everything a
// migration needs of a host, and share nothing that it could stumble over.
//
// A host is a set of pid, mount, net, uts, ipc and cgroup namespaces, anchored
// by an init of its own, which runs a real sshd on the host's own address.
// Each host has its own /proc, /sys, /run, /etc/vz, /var/lib/vz and cgroup
// tree; the templates, root's ~/.ssh, /tmp and the rest of the file system are
// shared. Hosts are called alpha, beta, gamma, …; one more, admin, is always
// there: clients and the admin's commands run on it.
//
// The network is a bridge in a namespace of its own, which exists as long as
// one host does. No daemon, no mount and no interface appears on the machine
// itself. What does appear, and disappears with [Lab.Down]: the state
// directory, one cgroup in each hierarchy, the hosts' processes, and the empty
// directories that the hosts need as mount points.
//
// Hosts are started from the running executable: call [Init] first in main, or
// in TestMain.
package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/renameio/v2"
	"golang.org/x/sync/errgroup"

	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/internal/undo"
)

// DefaultDir is where the lab of the command line keeps its state.
const DefaultDir = "/var/lib/vzlab"

// MaxHosts is how many hosts a lab may have beside admin.
const MaxHosts = 8

// Admin is the name of the host that every lab has.
const Admin = "admin"

var names = [MaxHosts]string{"alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta"}

// Config says what lab to bring up.
type Config struct {
	Dir   string    // state directory; "" is DefaultDir
	Hosts int       // 1 to MaxHosts, admin not counted; 0 is 2
	Bin   string    // directory that comes first in the hosts' PATH; "" is the running program's
	Log   io.Writer // gets one line a host; nil is none
}

// Lab is a set of hosts and their network.
type Lab struct {
	Dir   string // state directory, absolute
	Bin   string // directory that comes first in the hosts' PATH
	hosts int    // without admin
}

// state is what DIR/state/lab.json holds.
type state struct {
	Bin   string `json:"bin"`
	Hosts int    `json:"hosts"`
}

// Up makes the lab that cfg describes, or mends or extends the one in cfg.Dir;
// hosts that are well are left alone. When it returns, every sshd answers. An
// error undoes what this call has started. Kinds: BadValue, Permission,
// NoEngine before anything is touched.
func Up(ctx context.Context, cfg Config) (l *Lab, err error) {
	if l, err = newLab(cfg); err != nil {
		return nil, err
	}
	unlock, err := lock(ctx, l.Dir, true)
	if err != nil {
		return nil, err
	}
	defer unlock()
	var u undo.Stack
	defer func() { err = errors.Join(err, u.Run()) }()
	if err := l.prepare(&u); err != nil {
		return nil, err
	}
	if err := l.ensureHosts(ctx, &u); err != nil {
		return nil, err
	}
	for _, h := range l.Hosts() {
		if cfg.Log != nil {
			fmt.Fprintf(cfg.Log, "%-8s %-13s ready\n", h.Name(), h.Addr())
		}
	}
	u.Keep()
	return l, nil
}

func newLab(cfg Config) (*Lab, error) {
	l, err := at(cfg.Dir)
	if err != nil {
		return nil, err
	}
	if l.hosts = cfg.Hosts; l.hosts == 0 {
		l.hosts = 2
	}
	if l.hosts < 1 || l.hosts > MaxHosts {
		return nil, fault.New(fault.BadValue, "number of hosts %d is out of range", cfg.Hosts).
			WithHint("A lab has 1 to %d hosts.", MaxHosts)
	}
	if l.Bin, err = binDir(cfg.Bin); err != nil {
		return nil, err
	}
	if _, err := sshdPath(); err != nil {
		return nil, err
	}
	return l, preflight(l.Dir)
}

// at returns the bare Lab of a directory.
func at(dir string) (*Lab, error) {
	if dir == "" {
		dir = DefaultDir
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fault.New(fault.BadValue, "lab directory %q: %w", dir, err)
	}
	for _, target := range mountPoints() { // which every host mounts its own over
		if strings.HasPrefix(target+"/", strings.TrimSuffix(dir, "/")+"/") {
			return nil, fault.New(fault.BadValue, "lab directory %q holds %q", dir, target).
				WithHint("Give the lab a directory of its own.")
		}
	}
	return &Lab{Dir: dir}, nil
}

func binDir(dir string) (string, error) {
	if dir != "" {
		return filepath.Abs(dir)
	}
	exe, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find own program: %w", err)
	}
	return filepath.Dir(exe), nil
}

// Open returns the lab whose state is in dir ("" is DefaultDir). Its hosts need
// not be running. Kind NotRunning: there is none.
func Open(dir string) (*Lab, error) {
	l, err := at(dir)
	if err != nil {
		return nil, err
	}
	st, err := l.load()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.New(fault.NotRunning, "no lab in %q", l.Dir).WithHint("Bring one up with: vzlab up")
	}
	l.Bin, l.hosts = st.Bin, st.Hosts
	return l, err
}

func (l *Lab) path(parts ...string) string {
	return filepath.Join(append([]string{l.Dir}, parts...)...)
}

func (l *Lab) stateFile() string { return l.path("state", "lab.json") }

func (l *Lab) load() (state, error) {
	var st state
	text, err := os.ReadFile(l.stateFile())
	if err != nil {
		return st, err
	}
	if err := json.Unmarshal(text, &st); err != nil || st.Hosts < 1 || st.Hosts > MaxHosts {
		return state{}, fault.New(fault.Config, "lab state %q is damaged", l.stateFile()).
			WithHint("Take the lab down and up again: vzlab down; vzlab up")
	}
	return st, nil
}

func (l *Lab) save() error {
	text, err := json.Marshal(state{Bin: l.Bin, Hosts: l.hosts})
	if err != nil {
		return err
	}
	return writeFile(l.stateFile(), append(text, '\n'), 0o644)
}

// writeFile replaces a file at once, or not at all if it holds text already.
func writeFile(path string, text []byte, mode os.FileMode) error {
	if old, err := os.ReadFile(path); err == nil && slices.Equal(old, text) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return renameio.WriteFile(path, text, mode, renameio.IgnoreUmask(), renameio.WithTempDir(filepath.Dir(path)))
}

// Hosts lists the lab's hosts, admin last.
func (l *Lab) Hosts() []*Host {
	var hs []*Host
	for i := range l.hosts {
		hs = append(hs, l.host(i))
	}
	return append(hs, &Host{lab: l, name: Admin, number: adminNumber})
}

func (l *Lab) host(i int) *Host {
	return &Host{lab: l, name: names[i], number: firstNumber + byte(i)}
}

// Host returns the host of that name. Kind BadValue: there is none.
func (l *Lab) Host(name string) (*Host, error) {
	for _, h := range l.Hosts() {
		if h.name == name {
			return h, nil
		}
	}
	return nil, fault.New(fault.BadValue, "no lab host %q", name).WithHint("List them with: vzlab status")
}

// prepare makes everything that is not a host: mount points, directories,
// keys, configuration. In a new lab its undo takes everything down.
func (l *Lab) prepare(u *undo.Stack) error {
	st, err := l.load()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		u.Push("take lab down", func() error { return l.teardown(false) })
	case err != nil:
		return err
	}
	l.hosts = max(l.hosts, st.Hosts)
	if err := l.save(); err != nil {
		return fmt.Errorf("write lab state: %w", err)
	}
	if err := l.claimMountPoints(); err != nil {
		return err
	}
	if err := os.MkdirAll(l.path("template"), 0o755); err != nil {
		return fmt.Errorf("make template directory: %w", err)
	}
	return l.writeSSH()
}

func (l *Lab) ensureHosts(ctx context.Context, u *undo.Stack) error {
	if err := l.delegateRoots(); err != nil {
		return err
	}
	sw, err := l.openSwitch()
	if err != nil {
		return err
	}
	defer sw.Close()
	g, ctx := errgroup.WithContext(ctx)
	for _, h := range l.Hosts() {
		g.Go(func() error {
			if err := h.ensure(ctx, sw, u); err != nil {
				return fmt.Errorf("host %s: %w", h.name, err)
			}
			return nil
		})
	}
	return g.Wait()
}
