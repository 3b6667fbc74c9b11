package lab

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vzkit/vzkit/lifecycle/cgroup"
)

// leaf is the subgroup of the host's init and sshd. The host's root group has
// to be free of processes, or v2 would give no controller to the containers
// beside them (cgroups(7), "no internal processes").
const leaf = "init"

// group is a path in every cgroup hierarchy.
type group string

// id names the lab among all labs of the machine: "vzlab" for the default
// directory, else with a hash. The same path in a chroot is another lab.
func (l *Lab) id() string {
	root, err := os.Stat("/")
	first, err1 := os.Stat("/proc/1/root/")
	chrooted := err == nil && err1 == nil && !os.SameFile(root, first)
	if l.Dir == DefaultDir && !chrooted {
		return "vzlab"
	}
	key := l.Dir
	if chrooted {
		st := root.Sys().(*syscall.Stat_t)
		key = fmt.Sprint(st.Dev, st.Ino, l.Dir)
	}
	return fmt.Sprintf("vzlab-%x", sha256.Sum256([]byte(key)))[:len("vzlab-")+8]
}

func (l *Lab) group() group { return group(l.id()) }

func (h *Host) group() group { return group(filepath.Join(h.lab.id(), h.name)) }

// dirs are the group's directories, one a hierarchy.
func (g group) dirs() ([]string, error) {
	hs, err := cgroup.Hierarchies()
	var dirs []string
	for _, h := range hs {
		dirs = append(dirs, filepath.Join(h.Mount, string(g)))
	}
	return dirs, err
}

// create makes the group. What is there already stays.
func (g group) create() error {
	dirs, err := g.dirs()
	for _, dir := range dirs {
		err = errors.Join(err, makeGroup(filepath.Dir(dir)), makeGroup(dir))
	}
	return err
}

// makeGroup makes one cgroup directory that tasks can enter: with its parent's
// processors in a v1 cpuset, and with every controller that v2 can give it.
func makeGroup(dir string) error {
	_ = enable(filepath.Dir(dir), '+', controllers(filepath.Dir(dir)))
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make cgroup: %w", err)
	}
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		own, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil || len(bytes.TrimSpace(own)) > 0 || isUnified(dir) {
			continue
		}
		value, err := os.ReadFile(filepath.Join(filepath.Dir(dir), file))
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, file), value, 0)
		}
		if err != nil {
			return fmt.Errorf("copy cpuset: %w", err)
		}
	}
	return nil
}

func isUnified(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "cgroup.controllers"))
	return err == nil
}

// controllers lists what a v2 group could enable for its children and has not.
func controllers(dir string) (missing []string) {
	have, _ := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	enabled, _ := os.ReadFile(filepath.Join(dir, "cgroup.subtree_control"))
	for _, c := range strings.Fields(string(have)) {
		if !slices.Contains(strings.Fields(string(enabled)), c) {
			missing = append(missing, c)
		}
	}
	return missing
}

// enable switches controllers on ('+') or off ('-') for a v2 group's children,
// each for itself: one may be impossible where others are not.
func enable(dir string, sign byte, names []string) error {
	var errs []error
	for _, name := range names {
		text := append([]byte{sign}, name...)
		errs = append(errs, os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), text, 0))
	}
	return errors.Join(errs...)
}

// join moves process pid, with all its threads, into the group.
func (g group) join(pid int) error {
	dirs, err := g.dirs()
	for _, dir := range dirs {
		if e := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0); e != nil {
			err = errors.Join(err, fmt.Errorf("join cgroup: %w", e))
		}
	}
	return err
}

// settle moves the host's init from the root of its cgroup namespace to the
// leaf, and lets containers have all controllers.
func settle() error {
	dirs, err := group("/").dirs()
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		if err := makeGroup(filepath.Join(dir, leaf)); err != nil {
			return err
		}
	}
	if err := group(leaf).join(os.Getpid()); err != nil {
		return err
	}
	for _, dir := range dirs {
		_ = enable(dir, '+', controllers(dir))
	}
	return nil
}

// walk calls f for every directory of the group in every hierarchy, parents
// first. A subtree that vanishes meanwhile is no error.
func (g group) walk(f func(dir string)) error {
	dirs, err := g.dirs()
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				f(path)
			}
			if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
				return nil
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("list cgroup: %w", err)
		}
	}
	return nil
}

// pids lists the processes in the group and below it.
func (g group) pids() ([]int, error) {
	var pids []int
	err := g.walk(func(dir string) {
		text, _ := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		for _, s := range strings.Fields(string(text)) {
			// 0 stands for a process outside of our pid namespace.
			if pid, err := strconv.Atoi(s); err == nil && pid > 0 {
				pids = append(pids, pid)
			}
		}
	})
	slices.Sort(pids)
	return slices.Compact(pids), err
}

const killPatience = 20 * time.Second

// kill ends every process in the group. Frozen ones are thawed when the signal
// is pending, so that they die without running on.
func (g group) kill() error {
	for deadline := time.Now().Add(killPatience); ; time.Sleep(2 * time.Millisecond) {
		pids, err := g.pids()
		if err != nil || len(pids) == 0 {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("processes %v do not die", pids)
		}
		for _, pid := range pids {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		if err := g.walk(thaw); err != nil {
			return err
		}
	}
}

func thaw(dir string) {
	for file, text := range map[string]string{"freezer.state": "THAWED", "cgroup.freeze": "0"} {
		if f, err := os.OpenFile(filepath.Join(dir, file), os.O_WRONLY, 0); err == nil {
			_, _ = f.WriteString(text)
			f.Close()
		}
	}
}

// remove deletes the group, which has no processes left, and all below it.
func (g group) remove() error {
	var dirs []string
	if err := g.walk(func(dir string) { dirs = append(dirs, dir) }); err != nil {
		return err
	}
	var errs []error
	for _, dir := range slices.Backward(dirs) {
		errs = append(errs, removeGroup(dir))
	}
	return errors.Join(errs...)
}

// removeGroup waits a little for tasks that are just ending.
func removeGroup(dir string) error {
	for deadline := time.Now().Add(2 * time.Second); ; time.Sleep(time.Millisecond) {
		err := unix.Rmdir(dir)
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if !errors.Is(err, unix.EBUSY) || time.Now().After(deadline) {
			return fmt.Errorf("remove cgroup %q: %w", dir, err)
		}
	}
}

// delegateRoots switches on, at the root of each v2 tree, the controllers that
// the lab wants, and notes which they were for teardown.
func (l *Lab) delegateRoots() error {
	roots, err := group("/").dirs()
	if err != nil {
		return err
	}
	noted, _ := os.ReadFile(l.path("state", "controllers"))
	for _, root := range roots {
		missing := controllers(root)
		if len(missing) == 0 {
			continue
		}
		names := append(strings.Fields(string(noted)), missing...)
		slices.Sort(names)
		text := strings.Join(slices.Compact(names), "\n") + "\n"
		if err := writeFile(l.path("state", "controllers"), []byte(text), 0o644); err != nil {
			return err
		}
		_ = enable(root, '+', missing)
	}
	return nil
}

// undelegateRoots switches off again what delegateRoots switched on, unless
// somebody else has come to use it.
func (l *Lab) undelegateRoots() error {
	noted, err := os.ReadFile(l.path("state", "controllers"))
	if err != nil {
		return nil // nothing was switched on
	}
	roots, err := group("/").dirs()
	for _, root := range roots {
		if isUnified(root) {
			_ = enable(root, '-', strings.Fields(string(noted)))
		}
	}
	return err
}
