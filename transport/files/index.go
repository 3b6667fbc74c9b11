package files

import (
	"time"

	"golang.org/x/sys/unix"
)

// signature is what a change of an entry shows in.
type signature struct {
	dev, ino     uint64
	ctime, mtime int64 // nanoseconds
	size         int64
	mode         uint32
	nlink        uint32
}

func sign(st *unix.Stat_t) signature {
	return signature{
		dev: st.Dev, ino: st.Ino,
		ctime: st.Ctim.Nano(), mtime: st.Mtim.Nano(),
		size: st.Size, mode: st.Mode, nlink: uint32(st.Nlink),
	}
}

// node is an entry as the receiver has it. The nodes form the tree that the
// receiver has.
type node struct {
	sig      signature
	settled  bool             // a later change would have moved ctime
	children map[string]*node // of a directory
}

// changed reports whether the entry may differ from what was sent.
func (n *node) changed(st *unix.Stat_t) bool {
	return !n.settled || n.sig != sign(st)
}

// record notes that the receiver has the entry as st shows it; seen is a time
// not after the lstat(2).
func (n *node) record(st *unix.Stat_t, seen time.Time) {
	n.sig = sign(st)
	n.settled = settled(st.Ctim, seen)
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		n.children = nil
	} else if n.children == nil {
		n.children = make(map[string]*node)
	}
}

// settled reports whether any change after the time seen gets a ctime other
// than this one. The kernel stamps inodes by the tick, 1 to 10 ms; a file
// system without fractions of a second (ext4 with inodes of 128 bytes) by the
// second.
func settled(ctime unix.Timespec, seen time.Time) bool {
	grain := 20 * time.Millisecond
	if ctime.Nsec == 0 {
		grain += time.Second
	}
	return ctime.Nano() < seen.Add(-grain).UnixNano()
}
