package lifecycle

import (
	"encoding/json"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/google/renameio/v2"
	"github.com/google/uuid"

	"github.com/vzkit/vzkit/freeze"
	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/internal/procfs"
	"github.com/vzkit/vzkit/lifecycle/cgroup"
	"github.com/vzkit/vzkit/lifecycle/config"
	"github.com/vzkit/vzkit/lifecycle/launch"
	"github.com/vzkit/vzkit/lifecycle/network"
)

// DefaultUID is the host id of a container's root where neither vz.conf nor
// the container's config says otherwise (LOCAL_UID, LOCAL_GID).
const DefaultUID = 100000

// Container is one container of a host.
type Container struct {
	ID   uint32
	Conf *config.File
	host *Host
}

// Status is what a container is doing.
type Status struct {
	Exists  bool // config and private area are there
	Mounted bool
	Running bool
	Init    int // pid of its init on the host, 0 if not running
}

func (c *Container) get(key, fallback string) string {
	if v, ok := c.Conf.Get(key); ok && v != "" {
		return expand(v, c.ID)
	}
	return c.host.global(key, fallback, c.ID)
}

func (c *Container) id() string { return strconv.FormatUint(uint64(c.ID), 10) }

// Host is the machine the container is on.
func (c *Container) Host() *Host { return c.host }

// Root is where the container's file system is mounted while it runs.
func (c *Container) Root() string { return c.get("VE_ROOT", filepath.Join(c.host.Lib, "root", c.id())) }

// Private is the private area: the directory that is the container's root, or
// that holds its image.
func (c *Container) Private() string {
	return c.get("VE_PRIVATE", filepath.Join(c.host.Lib, "private", c.id()))
}

// Name is the container's NAME, or "".
func (c *Container) Name() string { v, _ := c.Conf.Get("NAME"); return v }

// Hostname is the container's host name.
func (c *Container) Hostname() string {
	if v, ok := c.Conf.Get("HOSTNAME"); ok && v != "" {
		return v
	}
	return "ct" + c.id()
}

// Template is the OS template the container was made from, or "".
func (c *Container) Template() string { v, _ := c.Conf.Get("OSTEMPLATE"); return v }

// Addresses are the container's IP addresses, without masks.
func (c *Container) Addresses() ([]netip.Addr, error) {
	v, _ := c.Conf.Get("IP_ADDRESS")
	var addrs []netip.Addr
	for _, s := range strings.Fields(v) {
		a, err := ParseAddress(s)
		if err != nil {
			return nil, err
		}
		if slices.Contains(addrs, a) {
			return nil, fault.New(fault.BadValue, "address %s stands twice in %q", a, v)
		}
		addrs = append(addrs, a)
	}
	return addrs, nil
}

// ParseAddress reads an address as --ipadd takes it, with or without a mask.
func ParseAddress(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if p, perr := netip.ParsePrefix(s); err != nil && perr == nil {
		a, err = p.Addr(), nil
	}
	a = a.Unmap()
	if err != nil || a.Zone() != "" || !a.IsGlobalUnicast() {
		return netip.Addr{}, fault.New(fault.BadValue, "%q is not a container's IP address", s)
	}
	return a, nil
}

// IDs are the host ids of the container's root. Ids below one container's
// range would make its root the host's, which is refused.
func (c *Container) IDs() (uid, gid uint32, err error) {
	for key, into := range map[string]*uint32{"LOCAL_UID": &uid, "LOCAL_GID": &gid} {
		v := c.get(key, strconv.Itoa(DefaultUID))
		n, err := strconv.ParseUint(v, 10, 32)
		if err != nil || n < launch.IDs || n > 1<<32-1-launch.IDs {
			return 0, 0, fault.New(fault.BadValue, "%s %q is not in %d..%d", key, v, launch.IDs, uint32(1<<32-1-launch.IDs)).
				WithHint("Containers run in a user namespace; choose a range that no user of the host has, such as %d.", DefaultUID)
		}
		*into = uint32(n)
	}
	return uid, gid, nil
}

// Venet is the container's connection to its host.
func (c *Container) Venet() network.Venet {
	addrs, _ := c.Addresses() // checked when the container was opened
	return network.Venet{CTID: c.ID, Addrs: addrs}
}

// Cgroup is the container's cgroup.
func (c *Container) Cgroup() (*cgroup.Group, error) { return cgroup.Open(c.ID) }

// Freezer freezes and thaws the container's processes.
func (c *Container) Freezer() (freeze.Freezer, error) {
	g, err := c.Cgroup()
	if err != nil {
		return freeze.Freezer{}, fault.Wrap(fault.Cgroup, err)
	}
	dir, unified, err := g.Freezer()
	return freeze.Freezer{Dir: dir, Unified: unified}, fault.Wrap(fault.Cgroup, err)
}

// Kill ends the container's processes, frozen or not, and returns when they
// are gone. A container without processes is fine.
func (c *Container) Kill() error {
	g, err := c.Cgroup()
	if err != nil {
		return fault.Wrap(fault.Cgroup, err)
	}
	if err := g.Kill(); err != nil {
		return fault.New(fault.Stop, "kill container %d: %w", c.ID, err)
	}
	return nil
}

// runState is what Host.Run keeps of a running container.
type runState struct {
	Init  int    `json:"init"`
	Start uint64 `json:"start"` // of init, in clock ticks since boot: pids are reused
}

func (c *Container) statePath() string { return filepath.Join(c.host.Run, c.id()+".json") }

// SetInit records that init is the container's first process.
func (c *Container) SetInit(pid int) error {
	start, err := procfs.StartTime(pid)
	if err != nil {
		return err
	}
	text, err := json.Marshal(runState{Init: pid, Start: start})
	if err != nil {
		return err
	}
	if err := os.MkdirAll(c.host.Run, 0o755); err != nil {
		return err
	}
	return renameio.WriteFile(c.statePath(), text, 0o644)
}

// ForgetInit removes what SetInit recorded.
func (c *Container) ForgetInit() error {
	if err := os.Remove(c.statePath()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Init is the pid of the container's init, or 0 if it does not run.
func (c *Container) Init() int {
	text, err := os.ReadFile(c.statePath())
	if err != nil {
		return 0
	}
	var s runState
	if json.Unmarshal(text, &s) != nil || s.Init <= 0 {
		return 0
	}
	if start, err := procfs.StartTime(s.Init); err != nil || start != s.Start {
		return 0
	}
	return s.Init
}

// Status looks at the container's files, mounts and processes.
func (c *Container) Status() (Status, error) {
	var s Status
	var err error
	if s.Exists, err = c.hasFiles(); err != nil {
		return s, err
	}
	at, err := c.rootMount()
	if err != nil {
		return s, err
	}
	s.Mounted = at == rootOurs
	s.Init = c.Init()
	s.Running = s.Init != 0
	return s, nil
}

func newID() (string, error) {
	id, err := uuid.NewRandom()
	return id.String(), err
}
