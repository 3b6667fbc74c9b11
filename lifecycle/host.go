// Package lifecycle is a system container from create to destroy: config,
// private area, namespaces, cgroup and network, as OpenVZ's vzctl has them.
//
// There is no daemon. What a container is stands in its config and private
// area; whether it runs stands in /run/vz and in the kernel. Every operation
// takes the container's lock, checks everything it can before it changes
// anything, and undoes what it did if it cannot finish.
//
// The package knows nothing of checkpoints and migration.
package lifecycle

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"

	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/lifecycle/config"
	"github.com/vzkit/vzkit/lifecycle/template"
)

// CTIDs up to MinCTID-1 are reserved; 0 is the host (vzctl(8)).
const (
	MinCTID = 101
	MaxCTID = 2147483644
)

// Host is the part of a machine that containers live in.
type Host struct {
	Etc string // configuration, /etc/vz
	Lib string // private areas and templates, /var/lib/vz
	Run string // what does not outlive a boot, /run/vz
}

// Local is this machine, at the places OpenVZ's tools use.
func Local() *Host { return &Host{Etc: "/etc/vz", Lib: "/var/lib/vz", Run: "/run/vz"} }

// ConfPath is where the container's configuration is.
func (h *Host) ConfPath(ctid uint32) string {
	return filepath.Join(h.Etc, "conf", strconv.FormatUint(uint64(ctid), 10)+".conf")
}

// Templates is the store of OS templates.
func (h *Host) Templates() template.Store {
	return template.Store{Dir: h.global("TEMPLATE", filepath.Join(h.Lib, "template"), 0)}
}

// global reads a key of vz.conf, with $VEID replaced where ctid is not 0.
func (h *Host) global(key, fallback string, ctid uint32) string {
	f, err := config.Load(filepath.Join(h.Etc, "vz.conf"))
	if err != nil {
		return fallback
	}
	if v, ok := f.Get(key); ok && v != "" {
		return expand(v, ctid)
	}
	return fallback
}

// expand replaces $VEID and ${VEID}, the variables of VE_ROOT and VE_PRIVATE.
func expand(value string, ctid uint32) string {
	id := strconv.FormatUint(uint64(ctid), 10)
	return strings.NewReplacer("${VEID}", id, "$VEID", id).Replace(value)
}

// List returns the containers of the host, by CTID. Those whose config cannot
// be read are left out, and the error says which they are.
func (h *Host) List() ([]*Container, error) {
	entries, err := os.ReadDir(filepath.Join(h.Etc, "conf"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fault.New(fault.Config, "list containers: %w", err)
	}
	var list []*Container
	var errs []error
	for _, e := range entries {
		id, err := ParseCTID(strings.TrimSuffix(e.Name(), ".conf"))
		if err != nil || e.Name() != filepath.Base(h.ConfPath(id)) {
			continue
		}
		c, err := h.Open(id)
		if err != nil {
			errs = append(errs, fmt.Errorf("container %d: %w", id, err))
			continue
		}
		list = append(list, c)
	}
	sort.Slice(list, func(i, j int) bool { return list[i].ID < list[j].ID })
	return list, errors.Join(errs...)
}

// Find returns the container that a command line names by CTID or NAME.
func (h *Host) Find(name string) (*Container, error) {
	if name == "" {
		return nil, fault.New(fault.BadValue, "container id is empty").
			WithHint("vzlist -a lists the containers of this host.")
	}
	if id, err := strconv.ParseUint(name, 10, 64); err == nil {
		if id == 0 || id > MaxCTID {
			return nil, fault.New(fault.BadValue, "container id %q is not in 1..%d", name, MaxCTID).
				WithHint("vzlist -a lists the containers of this host.")
		}
		return h.Open(uint32(id))
	}
	list, err := h.List()
	for _, c := range list {
		if c.Name() == name {
			return c, nil
		}
	}
	if err != nil {
		return nil, err
	}
	return nil, fault.New(fault.NoContainer, "container %q does not exist", name).
		WithHint("vzlist -a lists the containers of this host.")
}

// ParseCTID reads a CTID that may be given to a new container.
func ParseCTID(s string) (uint32, error) {
	id, err := strconv.ParseUint(s, 10, 32)
	if err != nil || id < MinCTID || id > MaxCTID {
		return 0, fault.New(fault.BadValue, "container id %q is not in %d..%d", s, MinCTID, MaxCTID)
	}
	return uint32(id), nil
}

// Open returns the container with that id.
func (h *Host) Open(ctid uint32) (*Container, error) {
	f, err := config.Load(h.ConfPath(ctid))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.New(fault.NoContainer, "container %d does not exist", ctid).
			WithHint("vzlist -a lists the containers of this host.")
	}
	if err != nil {
		return nil, err
	}
	return h.With(ctid, f)
}

// With returns a container of this host that has configuration f, which need
// not be on disk. Values that later steps depend on are checked here.
func (h *Host) With(ctid uint32, f *config.File) (*Container, error) {
	c := &Container{ID: ctid, Conf: f, host: h}
	if _, err := c.Addresses(); err != nil {
		return nil, err
	}
	if _, _, err := c.IDs(); err != nil {
		return nil, err
	}
	if err := c.checkLayout(); err != nil {
		return nil, err
	}
	for _, dir := range []string{c.Root(), c.Private()} {
		if !filepath.IsAbs(dir) || filepath.Clean(dir) != dir || dir == "/" {
			return nil, fault.New(fault.Config, "container %d: path %q is not absolute and clean", ctid, dir)
		}
	}
	return c, nil
}

// HostID names this machine durably: the same after a reboot, another one for
// another machine. It is made on first use.
func (h *Host) HostID() (string, error) {
	path := filepath.Join(h.Lib, "host-id")
	if text, err := os.ReadFile(path); err == nil && len(text) > 0 {
		return strings.TrimSpace(string(text)), nil
	}
	id, err := newID()
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(h.Lib, 0o755); err != nil {
		return "", fmt.Errorf("make state directory: %w", err)
	}
	return id, writeDurably(path, []byte(id+"\n"), 0o644)
}
