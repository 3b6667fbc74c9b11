package lab

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/vzkit/vzkit/lifecycle/cgroup"
)

// leaf is the subgroup of the host's init and sshd. The host's root group has
// to be free of processes, or v2 would give no controller to the containers
// beside them (cgroups(7), "no internal processes").
const leaf = "init"

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

// group holds all of the lab's processes.
func (l *Lab) group() (*cgroup.Group, error) { return cgroup.At(l.id()) }

// group is the host's; inside it is the root of all groups.
func (h *Host) group() (*cgroup.Group, error) { return cgroup.At(filepath.Join(h.lab.id(), h.name)) }

// leafGroup is where the host's own processes are, seen from the machine.
func (h *Host) leafGroup() (*cgroup.Group, error) {
	return cgroup.At(filepath.Join(h.lab.id(), h.name, leaf))
}

// settle moves the host's init from the root of its cgroup namespace to the
// leaf, and lets containers have all controllers.
func settle() error {
	own, err := cgroup.At(leaf)
	if err != nil {
		return err
	}
	if err := errors.Join(own.Create(), own.Join(os.Getpid())); err != nil {
		return err
	}
	for _, dir := range own.Dirs() { // free of processes only now
		root := filepath.Dir(dir)
		_ = cgroup.Switch(root, '+', cgroup.Idle(root))
	}
	return nil
}

// delegateRoots switches on, at the root of each v2 tree, the controllers that
// the lab wants, and notes which they were for teardown.
func (l *Lab) delegateRoots() error {
	hs, err := cgroup.Hierarchies()
	if err != nil {
		return err
	}
	noted, _ := os.ReadFile(l.path("state", "controllers"))
	for _, h := range hs {
		missing := cgroup.Idle(h.Mount)
		if len(missing) == 0 {
			continue
		}
		names := append(strings.Fields(string(noted)), missing...)
		slices.Sort(names)
		text := strings.Join(slices.Compact(names), "\n") + "\n"
		if err := writeFile(l.path("state", "controllers"), []byte(text), 0o644); err != nil {
			return err
		}
		_ = cgroup.Switch(h.Mount, '+', missing)
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
	hs, err := cgroup.Hierarchies()
	for _, h := range hs {
		if h.Unified {
			_ = cgroup.Switch(h.Mount, '-', strings.Fields(string(noted)))
		}
	}
	return err
}
