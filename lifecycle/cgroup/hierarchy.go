// Package cgroup keeps groups of processes: one cgroup of the same path in
// every hierarchy that is mounted, each v1 controller, named v1 hierarchies,
// and the unified v2 tree, whichever of them a host has (cgroups(7)).
package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"

	"github.com/moby/sys/mountinfo"
)

// Hierarchy is one mounted cgroup tree.
type Hierarchy struct {
	Mount   string // mount point
	Name    string // v1: controllers or name=…, as mounted; "" for v2
	Unified bool   // v2
}

// has tells whether a v1 hierarchy has a controller.
func (h Hierarchy) has(controller string) bool {
	return slices.Contains(strings.Split(h.Name, ","), controller)
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

// Idle lists the controllers that the v2 group dir has and does not give to
// its children. In a v1 hierarchy there are none.
func Idle(dir string) (names []string) {
	have, _ := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	given, _ := os.ReadFile(filepath.Join(dir, "cgroup.subtree_control"))
	for _, c := range strings.Fields(string(have)) {
		if !slices.Contains(strings.Fields(string(given)), c) {
			names = append(names, c)
		}
	}
	return names
}

// Switch turns controllers on ('+') or off ('-') for the children of the v2
// group dir, each for itself: one may be impossible where others are not.
func Switch(dir string, sign byte, names []string) error {
	var errs []error
	for _, name := range names {
		text := append([]byte{sign}, name...)
		errs = append(errs, os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), text, 0))
	}
	return errors.Join(errs...)
}
