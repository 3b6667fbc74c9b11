package files

import (
	"encoding/binary"
	"errors"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/vzkit/vzkit/internal/fault"
	"golang.org/x/sys/unix"
)

// What a file system may not be able to keep.
const (
	lossXattrs   = "extended attributes of class " // and the class
	lossACLs     = "POSIX ACLs"
	lossFlags    = "inode flags"
	lossProjects = "project identifiers"
	lossDevices  = "device nodes"
	lossOwners   = "owners"
)

func lossOf(attribute string) string {
	class, _, _ := strings.Cut(attribute, ".")
	if class == "system" {
		return lossACLs
	}
	return lossXattrs + class
}

// denied reports whether err says that a file system has no devices or owners.
func denied(err error) bool {
	return errors.Is(err, unix.EPERM) || errors.Is(err, unix.EINVAL) || unsupported(err)
}

// losses counts entries by what of them could not be kept.
type losses struct {
	mu     sync.Mutex
	allow  bool
	counts map[string]uint64
}

// lose is an error if nothing may be lost.
func (l *losses) lose(what, path string, err error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.allow {
		return fault.New(fault.Copy, "keep %s of %s: %w", what, quoted(path), err).
			WithHint("The destination's file system has no %s. Use one that has, or go without them by --lossy.", what)
	}
	if l.counts == nil {
		l.counts = make(map[string]uint64)
	}
	l.counts[what]++
	return nil
}

func (l *losses) counted(what string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.counts[what] > 0
}

// report calls lost for each kind and begins anew.
func (l *losses) report(lost func(what string, entries uint64)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, what := range slices.Sorted(maps.Keys(l.counts)) {
		lost(what, l.counts[what])
	}
	l.counts = nil
}

// Losses returns what the file system of the directory cannot keep, in the
// words that SetLossy reports. It tries it on entries that it makes there and
// removes. Errors: fault.Copy, fault.NoSpace.
func Losses(dir string) (lost []string, err error) {
	probe, err := os.MkdirTemp(dir, ".probe-")
	if err != nil {
		return nil, pathError("create directory in", dir, err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(probe)) }()
	f, err := os.Create(probe + "/file")
	if err != nil {
		return nil, pathError("create file in", dir, err)
	}
	defer f.Close()
	for _, try := range trials(int(f.Fd()), probe) {
		err := try.do()
		if err == nil {
			continue
		}
		if !denied(err) {
			return nil, pathError("try "+try.what+" in", dir, err)
		}
		lost = append(lost, try.what)
	}
	return lost, nil
}

type trial struct {
	what string
	do   func() error
}

// trials are done to an open file in the directory probe, and beside it.
func trials(fd int, probe string) []trial {
	set := func(name string, value []byte) func() error {
		return func() error { return unix.Fsetxattr(fd, name, value, 0) }
	}
	return []trial{
		{lossOwners, func() error { return unix.Fchown(fd, 1, 1) }},
		{lossXattrs + "user", set("user.probe", nil)},
		{lossXattrs + "trusted", set("trusted.probe", nil)},
		{lossXattrs + "security", set("security.probe", nil)},
		{lossACLs, set("system.posix_acl_access", probeACL())},
		{lossFlags, func() error { return writeFlags(fd, carriedFlags, flagNoDump, 0) }},
		{lossProjects, func() error { return writeFlags(fd, 0, 0, 1) }},
		{lossDevices, func() error { return unix.Mknod(probe+"/device", unix.S_IFCHR, int(unix.Mkdev(1, 3))) }},
	}
}

// probeACL is u::rw-,u:1:r--,g::r--,m::r--,o::--- (linux/posix_acl_xattr.h).
func probeACL() []byte {
	le := binary.LittleEndian
	b := le.AppendUint32(nil, 2)
	for _, e := range []struct {
		tag, perm uint16
		id        uint32
	}{{1, 6, noID}, {2, 4, 1}, {4, 4, noID}, {16, 4, noID}, {32, 0, noID}} {
		b = le.AppendUint32(le.AppendUint16(le.AppendUint16(b, e.tag), e.perm), e.id)
	}
	return b
}
