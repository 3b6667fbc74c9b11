package cgroup

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Group is a group of processes and the groups below it.
type Group struct {
	path string // in every hierarchy, without a leading slash
	hs   []Hierarchy
}

// parent holds the groups of all containers.
const parent = "vz"

// Open returns the group of a container, which need not exist yet.
func Open(ctid uint32) (*Group, error) {
	return At(filepath.Join(parent, strconv.FormatUint(uint64(ctid), 10)))
}

// At returns the group at a path, which need not exist yet.
func At(path string) (*Group, error) {
	hs, err := Hierarchies()
	if err != nil {
		return nil, err
	}
	return &Group{path: strings.Trim(path, "/"), hs: hs}, nil
}

// Path is the group's path inside every hierarchy: "/vz/101".
func (g *Group) Path() string { return "/" + g.path }

// Dirs are the group's directories, one a hierarchy.
func (g *Group) Dirs() (dirs []string) {
	for _, h := range g.hs {
		dirs = append(dirs, g.dir(h))
	}
	return dirs
}

func (g *Group) dir(h Hierarchy) string { return filepath.Join(h.Mount, g.path) }

// Create makes the group, and those above it, in every hierarchy. What is
// there already stays. On error nothing of the group itself is left.
func (g *Group) Create() error {
	for _, h := range g.hs {
		if err := g.create(h); err != nil {
			return errors.Join(fmt.Errorf("create cgroup: %w", err), g.Remove())
		}
	}
	return nil
}

// create makes the group in one hierarchy. Another command may remove a group
// above it as empty at the same moment, or have made that anew and not filled
// it yet: then it is made again.
func (g *Group) create(h Hierarchy) error {
	for try := 0; ; try++ {
		err := g.makeDirs(h)
		if err == nil || !gone(err) && !errors.Is(err, errEmptyCpuset) || try == 10 {
			return err
		}
	}
}

func (g *Group) makeDirs(h Hierarchy) error {
	dir := h.Mount
	for _, name := range strings.Split(g.path, "/") {
		_ = Switch(dir, '+', Idle(dir)) // those that can be given to children here
		above := dir
		dir = filepath.Join(dir, name)
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		if err := inheritCpuset(h, above, dir); err != nil {
			return err
		}
	}
	return nil
}

var errEmptyCpuset = errors.New("cpuset is empty")

// inheritCpuset copies processors and memory nodes of the group above into a
// new v1 cpuset, which takes no task while they are empty (cpuset(7)).
func inheritCpuset(h Hierarchy, above, dir string) error {
	if !h.has("cpuset") {
		return nil
	}
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		own := filepath.Join(dir, file)
		if value, err := os.ReadFile(own); err != nil || len(bytes.TrimSpace(value)) > 0 {
			continue
		}
		value, err := os.ReadFile(filepath.Join(above, file))
		if err != nil {
			return err
		}
		if len(bytes.TrimSpace(value)) == 0 {
			return fmt.Errorf("%w: %q", errEmptyCpuset, filepath.Join(above, file))
		}
		if err := os.WriteFile(own, value, 0); err != nil {
			return err
		}
	}
	return nil
}

// Join moves process pid, with all its threads, into the group.
func (g *Group) Join(pid int) error {
	for _, dir := range g.Dirs() {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0); err != nil {
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
		if h.Unified || h.has("freezer") {
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
	err = walk(dir, func(dir string) error {
		list, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		for _, s := range strings.Fields(string(list)) {
			if pid, err := strconv.Atoi(s); err == nil && pid > 0 { // 0: outside of the namespace
				pids = append(pids, pid)
			}
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list cgroup: %w", err)
	}
	return pids, nil
}

// Nested tells whether there are groups inside the group.
func (g *Group) Nested() bool {
	for _, dir := range g.Dirs() {
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			if e.IsDir() {
				return true
			}
		}
	}
	return false
}

// walk calls f for dir and every group below it. Groups that vanish meanwhile
// are no error.
func walk(dir string, f func(dir string) error) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			err = f(path)
		}
		if gone(err) {
			return nil
		}
		return err
	})
}

func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV)
}

// killTimeout bounds Kill; a killed task may have to finish disk I/O first.
const killTimeout = 20 * time.Second

// Kill sends SIGKILL to every process of the group until none is left. Frozen
// ones are thawed with the signal pending, so that they die without running
// on.
func (g *Group) Kill() error {
	dir, _, err := g.Freezer()
	if err != nil {
		return err
	}
	for deadline := time.Now().Add(killTimeout); ; time.Sleep(2 * time.Millisecond) {
		pids, err := g.Procs()
		if err != nil || len(pids) == 0 {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("processes %v do not die", pids)
		}
		for _, pid := range pids {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		if err := walk(dir, thaw); err != nil {
			return fmt.Errorf("thaw cgroup: %w", err)
		}
	}
}

// thaw writes to the freezer that dir has: v1's or v2's.
func thaw(dir string) error {
	for file, text := range map[string]string{"freezer.state": "THAWED", "cgroup.freeze": "0"} {
		f, err := os.OpenFile(filepath.Join(dir, file), os.O_WRONLY, 0)
		if err != nil {
			continue
		}
		_, err = f.WriteString(text)
		f.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// Remove deletes the group and groups inside it, in every hierarchy, and the
// one above it where that becomes empty. It goes on past errors and waits a
// little for tasks that are just ending.
func (g *Group) Remove() error {
	var errs []error
	for _, dir := range g.Dirs() {
		errs = append(errs, removeTree(dir))
		if strings.Contains(g.path, "/") {
			_ = os.Remove(filepath.Dir(dir)) // succeeds for the last one in it
		}
	}
	return errors.Join(errs...)
}

func removeTree(dir string) error {
	entries, err := os.ReadDir(dir)
	if gone(err) {
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
		if err == nil || gone(err) {
			return nil
		}
		if try == 200 {
			return fmt.Errorf("remove cgroup: %w", err)
		}
		time.Sleep(time.Millisecond)
	}
}
