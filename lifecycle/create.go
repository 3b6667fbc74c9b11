package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/internal/undo"
	"github.com/vzkit/vzkit/lifecycle/config"
	"github.com/vzkit/vzkit/lifecycle/template"
)

// CreateOptions are what `vzctl create` takes.
type CreateOptions struct {
	Template string   // --ostemplate; "" means vz.conf's DEF_OSTEMPLATE
	IPs      []string // --ipadd, each with or without a mask
	Hostname string
	Name     string
	Private  string // --private and --root; "$VEID" is replaced
	Root     string
	UID, GID string // --local_uid, --local_gid
	Layout   string // --layout; "" means vz.conf's VE_LAYOUT, or dir
	Space    string // --diskspace, of an image; "" means vz.conf's DISKSPACE, or 10 GiB
}

// maxHostname is the longest name of a host, in bytes (sethostname(2)).
const maxHostname = 64

var (
	hostnames = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*$`)
	names     = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]{0,63}$`)
)

// Create makes a container from a template: private area and config. Nothing
// is visible of it before all of it is there.
func (h *Host) Create(ctx context.Context, ctid uint32, o CreateOptions) (*Container, error) {
	lock, err := h.Lock(ctid, "vzctl create")
	if err != nil {
		return nil, err
	}
	defer lock.Unlock()
	c, err := h.plan(ctid, o)
	if err != nil {
		return nil, err
	}
	if _, err := h.Templates().Ensure(ctx, c.Template()); err != nil {
		return nil, err
	}
	var u undo.Stack
	defer u.Run()
	if err := c.fill(ctx, &u); err != nil {
		return nil, err
	}
	if err := h.publish(c); err != nil {
		return nil, err
	}
	u.Keep()
	return c, nil
}

// publish writes a new container's config, unless another one has come up with
// the same NAME or address meanwhile.
func (h *Host) publish(c *Container) error {
	path := h.ConfPath(c.ID)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fault.New(fault.Config, "make config directory: %w", err)
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return fault.New(fault.Config, "open config directory: %w", err)
	}
	defer dir.Close()
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX); err != nil {
		return fault.New(fault.Config, "lock config directory: %w", err)
	}
	if err := h.unique(c); err != nil {
		return err
	}
	return c.Conf.Save(path)
}

// plan checks the options and writes them into a config, without any effect.
func (h *Host) plan(ctid uint32, o CreateOptions) (*Container, error) {
	if _, err := os.Stat(h.ConfPath(ctid)); err == nil {
		return nil, fault.New(fault.Exists, "container %d exists already", ctid).
			WithHint("Choose another CTID, or vzctl destroy %d first.", ctid)
	}
	if o.Template == "" {
		o.Template = h.global("DEF_OSTEMPLATE", "", 0)
	}
	if o.Template == "" {
		return nil, fault.New(fault.NoTemplate, "no OS template given").
			WithHint("Use --ostemplate NAME; vztmpl list shows the templates.")
	}
	f, err := o.config()
	if err != nil {
		return nil, err
	}
	if err := h.putLayout(f, o.Layout, o.Space); err != nil {
		return nil, err
	}
	c, err := h.With(ctid, f)
	if err != nil {
		return nil, err
	}
	if _, err := h.Templates().Path(o.Template); err != nil { // refuses what is no name
		return nil, err
	}
	if _, err := os.Lstat(c.Private()); err == nil {
		return nil, fault.New(fault.Exists, "private area %q exists already", c.Private()).
			WithHint("It belongs to no container; move it away first.")
	}
	if err := c.checkRoot(); err != nil {
		return nil, err
	}
	return c, h.unique(c)
}

// config checks the options' values and puts them into a new config.
func (o CreateOptions) config() (*config.File, error) {
	if o.Hostname != "" && (len(o.Hostname) > maxHostname || !hostnames.MatchString(o.Hostname)) {
		return nil, fault.New(fault.BadValue, "%q is not a host name", o.Hostname)
	}
	if o.Name != "" && !names.MatchString(o.Name) {
		return nil, fault.New(fault.BadValue, "%q is not a container name", o.Name).
			WithHint("A name begins with a letter and has letters, digits, '_', '.' and '-'.")
	}
	f := &config.File{}
	for _, kv := range [][2]string{
		{"ONBOOT", "no"}, {"OSTEMPLATE", o.Template}, {"IP_ADDRESS", strings.Join(o.IPs, " ")},
		{"HOSTNAME", o.Hostname}, {"NAME", o.Name}, {"VE_PRIVATE", o.Private}, {"VE_ROOT", o.Root},
		{"LOCAL_UID", o.UID}, {"LOCAL_GID", o.GID},
	} {
		if kv[1] == "" {
			continue
		}
		if err := f.Set(kv[0], kv[1]); err != nil {
			return nil, err
		}
	}
	return f, nil
}

// unique refuses a NAME, an address or a directory that another container of
// the host has.
func (h *Host) unique(c *Container) error {
	others, _ := h.List() // a container that cannot be read cannot run either
	own, err := c.Addresses()
	if err != nil {
		return err
	}
	taken := map[netip.Addr]uint32{}
	for _, o := range others {
		if o.ID != c.ID && o.Name() != "" && o.Name() == c.Name() {
			return fault.New(fault.Exists, "name %q is container %d's", c.Name(), o.ID)
		}
		if o.ID != c.ID && (nested(o.Root(), c.Root()) || nested(o.Private(), c.Private())) {
			return fault.New(fault.Exists, "root %q or private area %q is container %d's", c.Root(), c.Private(), o.ID).
				WithHint("Give each container directories of its own.")
		}
		addrs, _ := o.Addresses()
		for _, a := range addrs {
			taken[a] = o.ID
		}
	}
	for _, a := range own {
		if id, ok := taken[a]; ok && id != c.ID {
			return fault.New(fault.AddressUsed, "address %s is container %d's", a, id)
		}
	}
	return nil
}

// nested tells whether one of two directories is the other or within it.
func nested(a, b string) bool {
	return a == b || strings.HasPrefix(a, b+"/") || strings.HasPrefix(b, a+"/")
}

// fill unpacks the template beside the private area and renames it into place.
func (c *Container) fill(ctx context.Context, u *undo.Stack) error {
	uid, gid, err := c.IDs()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(c.Private()), 0o711); err != nil {
		return fault.New(fault.Other, "make private areas' directory: %w", err)
	}
	if err := c.Sweep(); err != nil {
		return fault.New(fault.Other, "clear what an earlier create left: %w", err)
	}
	staging, err := os.MkdirTemp(filepath.Dir(c.Private()), ".create-"+c.id()+"-")
	if err != nil {
		return fault.New(fault.Other, "make staging directory: %w", err)
	}
	u.Push("remove "+staging, func() error { return os.RemoveAll(staging) })
	area, err := c.NewArea(ctx, staging, 0, 0)
	if err != nil {
		return err
	}
	u.Push("close "+staging, area.Close)
	if err := c.fillArea(ctx, area, uid, gid); err != nil {
		return err
	}
	if err := os.Rename(staging, c.Private()); err != nil {
		return fault.New(fault.Other, "put private area in place: %w", err)
	}
	u.Push("remove "+c.Private(), func() error { return os.RemoveAll(c.Private()) })
	return nil
}

// fillArea unpacks the template into a new private area.
func (c *Container) fillArea(ctx context.Context, area *Area, uid, gid uint32) error {
	err := c.host.Templates().Extract(ctx, c.Template(), area.Files, template.IDShift{UID: uid, GID: gid})
	if err != nil {
		return err
	}
	if err := makeDevices(area.Files, int(uid), int(gid)); err != nil {
		return err
	}
	if err := c.writeHostname(area.Files, int(uid), int(gid)); err != nil {
		return err
	}
	return area.Close()
}

// writeHostname puts the host name where the container's start scripts look
// for it, through no link that leads out of its tree.
func (c *Container) writeHostname(private string, uid, gid int) error {
	root, err := os.OpenRoot(private)
	if err != nil {
		return fault.New(fault.Other, "open private area: %w", err)
	}
	defer root.Close()
	const name = "etc/hostname"
	err = errors.Join(root.WriteFile(name, []byte(c.Hostname()+"\n"), 0o644), root.Chown(name, uid, gid))
	if err != nil {
		return fault.New(fault.Other, "set host name: %w", err)
	}
	return nil
}

// Destroy removes a stopped, unmounted container: private area, mount point
// and config, which is kept as CTID.conf.destroyed.
func (c *Container) Destroy() error {
	return c.locked("vzctl destroy", func() error {
		s, err := c.stopped()
		if err != nil {
			return err
		}
		if s.Mounted {
			return fault.New(fault.Mounted, "container %d is mounted", c.ID).WithHint("vzctl umount %d first.", c.ID)
		}
		return c.Remove(".destroyed")
	})
}

// stopped is the status of a container that must not run.
func (c *Container) stopped() (Status, error) {
	s, err := c.Status()
	if err == nil && s.Running {
		err = fault.New(fault.Running, "container %d is running", c.ID).WithHint("vzctl stop %d first.", c.ID)
	}
	return s, err
}

// Remove deletes the container's files and renames its config by adding
// suffix. The caller holds the lock and knows that the container is stopped.
func (c *Container) Remove(suffix string) error {
	if err := c.RetireConfig(suffix); err != nil {
		return err
	}
	if c.Layout() == LayoutImage {
		if err := c.image(c.Private()).Unmount(); err != nil {
			return err
		}
	}
	doomed := filepath.Join(filepath.Dir(c.Private()), fmt.Sprintf(".destroy-%d-%d", c.ID, os.Getpid()))
	err := os.Rename(c.Private(), doomed) // in one step, so that no half of it is ever seen
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	} else if err == nil {
		err = removeAll(doomed)
	}
	return errors.Join(err, c.Sweep(), c.removeRoot(), c.ForgetInit())
}

// Sweep removes what commands of this container left that were killed: private
// areas half made or half removed, and configs half written. The caller holds
// the lock, so none is at work.
func (c *Container) Sweep() error {
	private, conf := filepath.Dir(c.Private()), c.host.ConfPath(c.ID)
	var errs []error
	for _, pattern := range []string{
		filepath.Join(private, ".create-"+c.id()+"-*"), filepath.Join(private, ".destroy-"+c.id()+"-*"),
		filepath.Join(c.convertDir(), "*"), c.convertDir(),
		filepath.Join(filepath.Dir(conf), "."+filepath.Base(conf)+"*"), // renameio's
	} {
		left, err := filepath.Glob(pattern)
		errs = append(errs, err)
		for _, dir := range left {
			errs = append(errs, c.image(dir).Unmount(), removeAll(dir))
		}
	}
	return errors.Join(errs...)
}

// RetireConfig renames the container's config by adding suffix: the container
// is gone from this host, its private area stays.
func (c *Container) RetireConfig(suffix string) error {
	conf := c.host.ConfPath(c.ID)
	if err := os.Rename(conf, conf+suffix); err != nil {
		return fault.New(fault.Config, "rename config: %w", err)
	}
	return nil
}
