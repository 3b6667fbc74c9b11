package files

import (
	"encoding/binary"
	"slices"
	"strings"
	"time"

	"github.com/zeebo/xxh3"
	"golang.org/x/sys/unix"
)

// node is an entry as the receiver has it. The nodes form the tree that the
// receiver has; a million of them take about 100 MB.
type node struct {
	name    string
	ino     uint64
	digest  uint64     // of what lstat(2) showed, 0: the entry goes again
	parent  *directory // that it is in; nil: of the root, and of what is put aside
	dir     *directory // of a directory
	sums    *blockSums // of the content, of a regular file that is summed
	pass    int32      // in which it was looked at last
	kind    uint8      // the type bits of its mode
	linked  bool       // it has more names
	settled bool       // a later change would have moved ctime
	missing bool       // the receiver does not have it
}

// directory is one that the receiver has.
type directory struct {
	node    *node
	entries []*node // by name
}

const kindShift = 12 // of the type bits in a mode

// digest is what a change of an entry shows in; it is never 0.
func digest(st *unix.Stat_t) uint64 {
	var b [40]byte
	le := binary.LittleEndian
	le.PutUint64(b[0:], uint64(st.Ctim.Nano()))
	le.PutUint64(b[8:], uint64(st.Mtim.Nano()))
	le.PutUint64(b[16:], uint64(st.Size))
	le.PutUint64(b[24:], uint64(st.Mode))
	le.PutUint64(b[32:], uint64(st.Nlink))
	return xxh3.Hash(b[:]) | 1
}

// changed reports whether the entry may differ from what was sent.
func (n *node) changed(st *unix.Stat_t) bool {
	return n.missing || !n.settled || n.ino != st.Ino || n.digest != digest(st)
}

// same reports whether the receiver has, at the path of n, the inode that st is
// of: then a regular file there may be written to, and keeps its links.
func (n *node) same(st *unix.Stat_t) bool {
	return !n.missing && n.ino == st.Ino && n.kind == uint8(st.Mode>>kindShift)
}

// record notes that the receiver has the entry as st shows it; seen is a time
// not after the lstat(2). grain is how long a change may go on after it has set
// its time stamp.
func (n *node) record(st *unix.Stat_t, seen time.Time, grain time.Duration) {
	n.ino, n.digest, n.kind = st.Ino, digest(st), uint8(st.Mode>>kindShift)
	n.settled = settled(st.Ctim, seen, grain)
	n.linked = n.kind != unix.S_IFDIR>>kindShift && st.Nlink > 1
	n.missing = false
}

// A change stamps its file before it is made: a large write, a hole that waits
// for the disk. A watch is told when it has been made, so that only what it has
// lost depends on these. They are much longer than the tick, 1 to 10 ms, by
// which the kernel stamps.
const (
	watchedGrain   = time.Second
	unwatchedGrain = time.Minute
)

// settled reports whether any change that was not complete at the time seen has
// a ctime other than this one. A file system may have no fractions of a second
// (ext4 with inodes of 128 bytes).
func settled(ctime unix.Timespec, seen time.Time, grain time.Duration) bool {
	if ctime.Nsec == 0 {
		grain += time.Second
	}
	return ctime.Nano() < seen.Add(-grain).UnixNano()
}

func byName(n *node, name string) int { return strings.Compare(n.name, name) }

// find returns the entry of that name, nil if the receiver has none.
func (d *directory) find(name string) *node {
	i, ok := slices.BinarySearchFunc(d.entries, name, byName)
	if !ok {
		return nil
	}
	return d.entries[i]
}

// put adds an entry, whose name is free.
func (d *directory) put(n *node) {
	i, _ := slices.BinarySearchFunc(d.entries, n.name, byName)
	d.entries = slices.Insert(d.entries, i, n)
	n.parent = d
}

// take removes an entry.
func (d *directory) take(n *node) {
	if i, ok := slices.BinarySearchFunc(d.entries, n.name, byName); ok && d.entries[i] == n {
		d.entries = slices.Delete(d.entries, i, i+1)
	}
	n.parent = nil
}

// names is the way from the root to d; ok is false if d is put aside.
func (d *directory) names(root *directory) (names []string, ok bool) {
	for ; d != root; d = d.node.parent {
		if d == nil {
			return nil, false
		}
		names = append(names, d.node.name)
	}
	slices.Reverse(names)
	return names, true
}

// each calls do for all that is beneath d.
func (d *directory) each(do func(n *node)) {
	for _, n := range d.entries {
		do(n)
		if n.dir != nil {
			n.dir.each(do)
		}
	}
}

// result is what a worker has found out about an entry, which the scanner notes.
type result struct {
	node *node
	st   unix.Stat_t
	seen time.Time
}
