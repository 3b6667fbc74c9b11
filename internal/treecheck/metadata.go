package treecheck

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"

	"golang.org/x/sys/unix"
)

func notSymlink(st *unix.Stat_t) bool { return !isSymlink(st) }

func (m *Mutator) chmod() (string, error) {
	p, err := m.pick(notSymlink)
	if err != nil {
		return "", err
	}
	mode := m.r.Uint32N(0o10000)
	return fmt.Sprintf("%s to %o", p, mode), unix.Fchmodat(p.dir, p.name, mode, 0)
}

func (m *Mutator) chown() (string, error) {
	p, err := m.pickAny()
	if err != nil {
		return "", err
	}
	uid, gid := m.r.IntN(math.MaxUint32-1), m.r.IntN(math.MaxUint32-1)
	return p.String(), unix.Fchownat(p.dir, p.name, uid, gid, unix.AT_SYMLINK_NOFOLLOW)
}

// seconds are moments that break narrow types: before 1970, beyond 2038, 2106
// and nearly the end of ext4's time.
var seconds = []int64{
	math.MinInt32 + 1, -1, 0, 1, math.MaxInt32 - 1, math.MaxInt32 + 1, math.MaxUint32, math.MaxUint32 + 1, 15032385534,
}

func (m *Mutator) time() unix.Timespec {
	t := unix.Timespec{Sec: m.r.Int64N(1 << 31), Nsec: m.r.Int64N(1e9)}
	if m.r.IntN(2) == 0 {
		t.Sec = pickOne(m.r, seconds)
	}
	if m.r.IntN(4) == 0 {
		t.Nsec = pickOne(m.r, []int64{0, 1, 999999999})
	}
	return t
}

// touch sets times on anything, the root too.
func (m *Mutator) touch() (string, error) {
	p, err := m.pickAny()
	if m.r.IntN(20) == 0 {
		p, err = place{dir: m.root, name: "."}, nil
	}
	if err != nil {
		return "", err
	}
	return p.String(), setTimes(p, m.time(), m.time())
}

func setTimes(p place, atime, mtime unix.Timespec) error {
	return unix.UtimesNanoAt(p.dir, p.name, []unix.Timespec{atime, mtime}, unix.AT_SYMLINK_NOFOLLOW)
}

// setXattr sets one of a few attributes. Those of the user class are for files
// and directories only.
func (m *Mutator) setXattr() (string, error) {
	p, err := m.pickAny()
	if err != nil {
		return "", err
	}
	names := []string{"trusted.t0", "trusted.overlay.opaque"}
	if isRegular(&p.st) || isDir(&p.st) {
		names = append(names, "user.u0", "user.\xff\n", "user.long"+fmt.Sprintf("%0200d", 0), "security.other")
	}
	name := pickOne(m.r, names)
	value := m.bytes(pickOne(m.r, []int{0, 1, 30, 200, 1500}))
	return fmt.Sprintf("%s: %q", p, name), setXattr(p, name, value)
}

// setXattr takes it for impossible if the file system has no room in the
// inode's block.
func setXattr(p place, name string, value []byte) error {
	err := unix.Lsetxattr(procPath(p.dir, p.name), name, value, 0)
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.E2BIG) {
		return errNothing
	}
	return err
}

func (m *Mutator) removeXattr() (string, error) {
	p, err := m.pickAny()
	if err != nil {
		return "", err
	}
	xs, err := readXattrs(procPath(p.dir, p.name))
	if err != nil {
		return "", err
	}
	names := slices.Sorted(maps.Keys(xs))
	if len(names) == 0 {
		return "", errNothing
	}
	name := pickOne(m.r, names)
	return fmt.Sprintf("%s: %q", p, name), unix.Lremovexattr(procPath(p.dir, p.name), name)
}

func (m *Mutator) setCapability() (string, error) {
	p, err := m.pick(isRegular)
	if err != nil {
		return "", err
	}
	return p.String(), setXattr(p, "security.capability", Capability(m.r.Uint32N(2)*100000))
}

// Capability is the value of security.capability for cap_net_raw=ep, of
// revision 3 for the root of a user namespace, else of revision 2.
func Capability(root uint32) []byte {
	le := binary.LittleEndian
	b := make([]byte, 20)
	le.PutUint32(b, 0x02000001)
	le.PutUint32(b[4:], 1<<13)
	if root != 0 {
		le.PutUint32(b, 0x03000001)
		b = le.AppendUint32(b, root)
	}
	return b
}

// setACL sets an access or a default ACL with one named user.
func (m *Mutator) setACL() (string, error) {
	p, err := m.pick(notSymlink)
	if err != nil {
		return "", err
	}
	name := "system.posix_acl_access"
	if isDir(&p.st) && m.r.IntN(2) == 0 {
		name = "system.posix_acl_default"
	}
	return p.String(), setXattr(p, name, ACL(m.r.Uint32N(1<<31), uint16(m.r.IntN(8))))
}

// ACL is the value of an ACL attribute: u::rwx,u:UID:PERM,g::r-x,m::r-x,o::---.
func ACL(uid uint32, perm uint16) []byte {
	const none = math.MaxUint32
	b := binary.LittleEndian.AppendUint32(nil, 2)
	for _, e := range []struct {
		tag, perm uint16
		id        uint32
	}{{1, 7, none}, {2, perm, uid}, {4, 5, none}, {16, 5, none}, {32, 0, none}} {
		b = binary.LittleEndian.AppendUint16(b, e.tag)
		b = binary.LittleEndian.AppendUint16(b, e.perm)
		b = binary.LittleEndian.AppendUint32(b, e.id)
	}
	return b
}

func hasFlags(st *unix.Stat_t) bool { return isDir(st) || isRegular(st) }

func (m *Mutator) setFlags() (string, error) {
	p, err := m.pick(hasFlags)
	if err != nil {
		return "", err
	}
	set := pickOne(m.r, []uint32{flagImmutable, flagAppend, flagNoAtime, flagNoDump})
	if isDir(&p.st) && m.r.IntN(2) == 0 {
		set = flagNoDump // a sealed directory ends most changes
	}
	if isRegular(&p.st) && m.r.IntN(8) == 0 {
		set = flagSync // makes writing slow, so it is rare, and not on directories, which hand it on
	}
	return p.String() + " " + flagText(set), withFile(p.dir, p.name, unix.O_RDONLY, func(fd int) error {
		return changeFlags(fd, set, 0)
	})
}

func (m *Mutator) clearFlags() (string, error) {
	p, err := m.pick(hasFlags)
	if err != nil {
		return "", err
	}
	return p.String(), withFile(p.dir, p.name, unix.O_RDONLY, func(fd int) error {
		flags, _, err := readFlags(fd)
		if err == nil && flags == 0 {
			err = errNothing
		}
		if err != nil {
			return err
		}
		return changeFlags(fd, 0, allFlags)
	})
}

// setProject gives a project identifier; directories hand theirs on.
func (m *Mutator) setProject() (string, error) {
	p, err := m.pick(hasFlags)
	if err != nil {
		return "", err
	}
	return p.String(), withFile(p.dir, p.name, unix.O_RDONLY, func(fd int) error {
		var x fsxattr
		if err := x.ioctl(fd, fsGetXattr); err != nil {
			return err
		}
		x.project = m.r.Uint32N(1 << 20)
		if isDir(&p.st) {
			x.flags |= flagProjInherit
		}
		return x.ioctl(fd, fsSetXattr)
	})
}
