package files

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// owner is whom new files belong to that a thread creates: one chown(2) less for
// each, which costs as much as half a creation. The kernel has these per thread
// (credentials(7), setfsuid(2)); what it does not do as asked, setMode mends.
type owner struct {
	able     bool
	uid, gid uint32
}

// keepCaps is SECBIT_NO_SETUID_FIXUP (capabilities(7)): another fsuid leaves the
// capabilities as they are.
const keepCaps = 1 << 2

// adoptThread binds the goroutine to its thread, which ends with it, and lets
// that create files of any owner.
func (o *owner) adoptThread() {
	runtime.LockOSThread()
	bits, err := unix.PrctlRetInt(unix.PR_GET_SECUREBITS, 0, 0, 0, 0)
	if err != nil || unix.Prctl(unix.PR_SET_SECUREBITS, uintptr(bits|keepCaps), 0, 0, 0) != nil {
		return
	}
	o.able = true
	o.uid, o.gid = uint32(unix.Geteuid()), uint32(unix.Getegid()) //nolint:gosec // never negative
}

// set has the files that come next belong to the owner of e.
func (o *owner) set(e *entry) {
	if !o.able {
		return
	}
	if o.gid != e.gid {
		_ = unix.Setfsgid(int(e.gid)) // setMode looks at what came of it
		o.gid = e.gid
	}
	if o.uid != e.uid {
		_ = unix.Setfsuid(int(e.uid))
		o.uid = e.uid
	}
}
