// Package cgroup gives a container one cgroup of the same path in every
// hierarchy that is mounted: each v1 controller, named v1 hierarchies, and the
// unified v2 tree, whichever of them a host has (cgroups(7)).
package cgroup

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// Parent is the cgroup that holds all containers, in every hierarchy.
const Parent = "vz"

// Hierarchy is one mounted cgroup tree.
type Hierarchy struct {
	Mount   string // mount point
	Name    string // v1: controllers or name=…, as mounted; "" for v2
	Unified bool   // v2
}

// Hierarchies lists the mounted cgroup trees, v2 last, each once.
func Hierarchies() ([]Hierarchy, error) {
	mounts, err := mountinfo.GetMounts(mountinfo.FSTypeFilter("cgroup", "cgroup2"))
	if err != nil {
		return nil, fmt.Errorf("list cgroup mounts: %w", err)
	}
	seen := map[string]bool{}
	var hs []Hierarchy
	for _, m := range mounts {
		h := Hierarchy{Mount: m.Mountpoint, Unified: m.FSType == "cgroup2"}
		if !h.Unified {
			h.Name = controllers(m.VFSOptions)
		}
		if m.Root != "/" || seen[h.Name] {
			continue
		}
		seen[h.Name] = true
		hs = append(hs, h)
	}
	if len(hs) == 0 {
		return nil, errors.New("no cgroup file system is mounted")
	}
	sort.SliceStable(hs, func(i, j int) bool { return !hs[i].Unified && hs[j].Unified })
	return hs, nil
}

// controllers keeps of a v1 superblock's options those that name the tree.
func controllers(options string) string {
	var names []string
	for _, o := range strings.Split(options, ",") {
		switch {
		case o == "rw" || o == "ro" || o == "xattr" || o == "clone_children":
		case strings.HasPrefix(o, "release_agent="):
		default:
			names = append(names, o)
		}
	}
	return strings.Join(names, ",")
}

// Group is one container's cgroup in all hierarchies.
type Group struct {
	name string // below Parent
	hs   []Hierarchy
}

// Open returns the group of a container, which need not exist yet.
func Open(ctid uint32) (*Group, error) {
	hs, err := Hierarchies()
	if err != nil {
		return nil, err
	}
	return &Group{name: strconv.FormatUint(uint64(ctid), 10), hs: hs}, nil
}

// Path is the group's path inside every hierarchy: "/vz/101".
func (g *Group) Path() string { return "/" + Parent + "/" + g.name }

func (g *Group) dir(h Hierarchy) string { return filepath.Join(h.Mount, Parent, g.name) }

// Create makes the group in every hierarchy. On error nothing is left of it.
func (g *Group) Create() error {
	for _, h := range g.hs {
		if err := g.create(h); err != nil {
			g.Remove()
			return fmt.Errorf("create cgroup: %w", err)
		}
	}
	return nil
}

// create makes the group in one hierarchy. Another command may remove the
// parent as empty at the same moment: then it is made again.
func (g *Group) create(h Hierarchy) error {
	for try := 0; ; try++ {
		err := g.makeDirs(h)
		if err == nil || ignoreGone(err) != nil || try == 10 {
			return err
		}
	}
}

func (g *Group) makeDirs(h Hierarchy) error {
	for _, dir := range []string{filepath.Join(h.Mount, Parent), g.dir(h)} {
		if h.Unified {
			delegate(filepath.Dir(dir))
		}
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		if err := inheritCpuset(h, dir); err != nil {
			return err
		}
	}
	return nil
}

// delegate enables, in the v2 group dir, every controller it has for its
// children; one that cannot be enabled there is left out.
func delegate(dir string) {
	available, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return
	}
	for _, c := range strings.Fields(string(available)) {
		_ = os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+c), 0)
	}
}

// inheritCpuset copies the parent's processors and memory nodes into a new v1
// cpuset, which takes no task while they are empty (cpuset(7)).
func inheritCpuset(h Hierarchy, dir string) error {
	if h.Unified || !strings.Contains(","+h.Name+",", ",cpuset,") {
		return nil
	}
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		own := filepath.Join(dir, file)
		if value, err := os.ReadFile(own); err != nil || len(bytes.TrimSpace(value)) > 0 {
			continue
		}
		value, err := os.ReadFile(filepath.Join(filepath.Dir(dir), file))
		if err != nil {
			return err
		}
		if err := os.WriteFile(own, value, 0); err != nil {
			return err
		}
	}
	return nil
}

// Join moves process pid, with all its threads, into the group.
func (g *Group) Join(pid int) error {
	for _, h := range g.hs {
		file := filepath.Join(g.dir(h), "cgroup.procs")
		if err := os.WriteFile(file, []byte(strconv.Itoa(pid)), 0); err != nil {
			return fmt.Errorf("join cgroup: %w", err)
		}
	}
	return nil
}

// Chown gives the v2 group's delegated files to the container's root, as
// cgroups(7) "delegation" says, so that an init inside may make subgroups.
func (g *Group) Chown(uid, gid int) error {
	for _, h := range g.hs {
		if !h.Unified {
			continue
		}
		for _, file := range []string{".", "cgroup.procs", "cgroup.threads", "cgroup.subtree_control"} {
			if err := os.Chown(filepath.Join(g.dir(h), file), uid, gid); err != nil {
				return fmt.Errorf("delegate cgroup: %w", err)
			}
		}
	}
	return nil
}

// Freezer returns the directory of the group in the hierarchy that freezes it:
// the v1 freezer where one is mounted, else v2. It is CRIU's --freeze-cgroup.
func (g *Group) Freezer() (dir string, unified bool, err error) {
	for _, h := range g.hs {
		if h.Unified || strings.Contains(","+h.Name+",", ",freezer,") {
			return g.dir(h), h.Unified, nil
		}
	}
	return "", false, errors.New("no freezer: neither a v1 freezer nor cgroup v2 is mounted")
}

// Procs lists the processes of the group and of groups below it, as pids of
// the caller's pid namespace.
func (g *Group) Procs() ([]int, error) {
	dir, _, err := g.Freezer()
	if err != nil {
		return nil, err
	}
	var pids []int
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return ignoreGone(err)
		}
		list, err := os.ReadFile(filepath.Join(path, "cgroup.procs"))
		for _, s := range strings.Fields(string(list)) {
			if pid, err := strconv.Atoi(s); err == nil && pid > 0 {
				pids = append(pids, pid)
			}
		}
		return ignoreGone(err)
	})
	return pids, err
}

func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

// killTimeout bounds Kill; a killed task may have to finish disk I/O first.
const killTimeout = 20 * time.Second

// Kill sends SIGKILL to every process of the group until none is left. Frozen
// tasks of a v1 freezer die when it is thawed: Kill leaves that to the caller's
// thaw function, called after each round of signals; nil for none.
func (g *Group) Kill(thaw func() error) error {
	for deadline := time.Now().Add(killTimeout); ; time.Sleep(2 * time.Millisecond) {
		pids, err := g.Procs()
		if err != nil {
			return fmt.Errorf("list cgroup: %w", err)
		}
		if len(pids) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("processes %v do not die", pids)
		}
		for _, pid := range pids {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		if thaw != nil {
			if err := thaw(); err != nil {
				return err
			}
		}
	}
}

// Remove deletes the group, and groups inside it, in every hierarchy. It goes
// on past errors and waits a little for tasks that are just ending.
func (g *Group) Remove() error {
	var errs []error
	for _, h := range g.hs {
		errs = append(errs, removeTree(g.dir(h)))
		_ = os.Remove(filepath.Join(h.Mount, Parent)) // succeeds for the last container
	}
	return errors.Join(errs...)
}

func removeTree(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeTree(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	for try := 0; ; try++ {
		err = os.Remove(dir)
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if try == 200 {
			return fmt.Errorf("remove cgroup: %w", err)
		}
		time.Sleep(time.Millisecond)
	}
}
