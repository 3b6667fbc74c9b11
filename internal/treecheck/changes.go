package treecheck

import (
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

var contentChanges = []change{
	{"overwrite", (*Mutator).overwrite},
	{"overwrite", (*Mutator).overwrite},
	{"append to", (*Mutator).appendTo},
	{"truncate", (*Mutator).truncate},
	{"punch hole in", allocate(unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE)},
	{"allocate in", allocate(unix.FALLOC_FL_KEEP_SIZE)},
	{"insert into", allocate(unix.FALLOC_FL_INSERT_RANGE)},
	{"cut from", allocate(unix.FALLOC_FL_COLLAPSE_RANGE)},
	{"write through mapping of", (*Mutator).writeMapped},
	{"rewrite", (*Mutator).rewrite},
}

var nameChanges = []change{
	{"rename", (*Mutator).rename},
	{"rename", (*Mutator).rename},
	{"swap", (*Mutator).swap},
	{"unlink", (*Mutator).unlink},
	{"delete tree", (*Mutator).deleteTree},
	{"make again", (*Mutator).makeAgain},
	{"replace by rename", (*Mutator).replace},
	{"change type of", (*Mutator).retype},
}

var metadataChanges = []change{
	{"chmod", (*Mutator).chmod},
	{"chown", (*Mutator).chown},
	{"set times of", (*Mutator).touch},
	{"set attribute of", (*Mutator).setXattr},
	{"set attribute of", (*Mutator).setXattr},
	{"remove attribute of", (*Mutator).removeXattr},
	{"set capability of", (*Mutator).setCapability},
	{"set ACL of", (*Mutator).setACL},
}

var flagChanges = []change{
	{"set flags of", (*Mutator).setFlags},
	{"clear flags of", (*Mutator).clearFlags},
	{"clear flags of", (*Mutator).clearFlags},
	{"set project of", (*Mutator).setProject},
}

var (
	allChanges       = slices.Concat(growth, contentChanges, contentChanges, nameChanges, nameChanges, metadataChanges)
	changesAndFlags  = slices.Concat(allChanges, flagChanges)
	metadataAndFlags = slices.Concat(metadataChanges, flagChanges)
)

// described are the changes of metadata.
func (m *Mutator) described() []change {
	if m.options.Flags {
		return metadataAndFlags
	}
	return metadataChanges
}

func (m *Mutator) changes() []change {
	if m.options.Flags {
		return changesAndFlags
	}
	return allChanges
}

// onFile does something to a random file, open for reading and writing.
func (m *Mutator) onFile(do func(fd int, p place) error) (string, error) {
	p, err := m.pick(isRegular)
	if err != nil {
		return "", err
	}
	return p.String(), withFile(p.dir, p.name, unix.O_RDWR, func(fd int) error { return do(fd, p) })
}

// overwrite writes into a file; half the time it puts the mtime back.
func (m *Mutator) overwrite() (string, error) {
	return m.onFile(func(fd int, p place) error {
		if p.st.Size == 0 {
			return errNothing
		}
		at := m.r.Int64N(p.st.Size)
		n := min(p.st.Size-at, 1+m.r.Int64N(6000))
		if err := pwriteAll(fd, m.bytes(int(n)), at); err != nil {
			return err
		}
		if m.r.IntN(2) == 0 {
			return nil
		}
		return setTimes(p, unix.Timespec{Nsec: unix.UTIME_OMIT}, p.st.Mtim)
	})
}

func (m *Mutator) appendTo() (string, error) {
	return m.onFile(func(fd int, p place) error { return pwriteAll(fd, m.bytes(1+m.r.IntN(5000)), p.st.Size) })
}

// truncate makes a file shorter or longer.
func (m *Mutator) truncate() (string, error) {
	return m.onFile(func(fd int, p place) error { return unix.Ftruncate(fd, m.r.Int64N(p.st.Size*3/2+5000)) })
}

// allocate does what fallocate(2) can do, in blocks of 4 KiB.
func allocate(mode uint32) func(m *Mutator) (string, error) {
	return func(m *Mutator) (string, error) {
		return m.onFile(func(fd int, p place) error {
			blocks := p.st.Size>>12 + 1
			return unix.Fallocate(fd, mode, m.r.Int64N(blocks)<<12, (1+m.r.Int64N(5))<<12)
		})
	}
}

// writeMapped writes a few bytes through a shared mapping.
func (m *Mutator) writeMapped() (string, error) {
	return m.onFile(func(fd int, p place) error {
		size := int(min(p.st.Size, 1<<20))
		if size == 0 {
			return errNothing
		}
		mem, err := unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		if err != nil {
			return err
		}
		for range 1 + m.r.IntN(4) {
			mem[m.r.IntN(size)] ^= byte(1 + m.r.IntN(255))
		}
		return unix.Munmap(mem)
	})
}

// rewrite gives a file other content as an editor in place does.
func (m *Mutator) rewrite() (string, error) {
	return m.onFile(func(fd int, p place) error {
		if err := unix.Ftruncate(fd, 0); err != nil {
			return err
		}
		return pwriteAll(fd, m.bytes(m.r.IntN(9000)), 0)
	})
}

// rename moves anything to a new name or over an entry.
func (m *Mutator) rename() (string, error) {
	from, err := m.pickAny()
	if err != nil {
		return "", err
	}
	to, err := m.newPlace()
	if m.r.IntN(3) == 0 {
		to, err = m.pickAny()
	}
	if err != nil {
		return "", err
	}
	return from.String() + " to " + to.String(), unix.Renameat(from.dir, from.name, to.dir, to.name)
}

func (m *Mutator) swap() (string, error) {
	a, err := m.pickAny()
	if err != nil {
		return "", err
	}
	b, err := m.pickAny()
	if err != nil {
		return "", err
	}
	if a.path == b.path {
		return "", errNothing
	}
	return a.String() + " and " + b.String(), unix.Renameat2(a.dir, a.name, b.dir, b.name, unix.RENAME_EXCHANGE)
}

func (m *Mutator) unlink() (string, error) {
	p, err := m.pick(func(st *unix.Stat_t) bool { return !isDir(st) })
	if err != nil {
		return "", err
	}
	return p.String(), unix.Unlinkat(p.dir, p.name, 0)
}

// deleteTree deletes a directory with all in it; one that holds much of the
// tree is left alone most of the time.
func (m *Mutator) deleteTree() (string, error) {
	p, err := m.pick(isDir)
	if err != nil {
		return "", err
	}
	if !strings.Contains(p.path, "/") && m.r.IntN(4) > 0 {
		return "", errNothing
	}
	return p.String(), m.removeAll(p)
}

// removeAll deletes an entry and all beneath it; it may stop half-way at what
// is immutable.
func (m *Mutator) removeAll(p place) error {
	if !isDir(&p.st) {
		return unix.Unlinkat(p.dir, p.name, 0)
	}
	names, err := list(p.inside, m.buf)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := m.removeIn(p.inside, name); err != nil {
			return err
		}
	}
	return unix.Unlinkat(p.dir, p.name, unix.AT_REMOVEDIR)
}

func (m *Mutator) removeIn(dir int, name string) error {
	below := place{dir: dir, name: name}
	if err := unix.Fstatat(dir, name, &below.st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if isDir(&below.st) {
		fd, err := unix.Openat(dir, name, dirFlags, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		below.inside = fd
	}
	return m.removeAll(below)
}

// makeAgain deletes a file and makes one of the same name, half the time with
// the same content and mtime: nothing but the inode is new.
func (m *Mutator) makeAgain() (string, error) {
	p, err := m.pick(isRegular)
	if err != nil {
		return "", err
	}
	b, err := m.content(p)
	if err != nil {
		return "", err
	}
	if err := unix.Unlinkat(p.dir, p.name, 0); err != nil {
		return "", err
	}
	if m.r.IntN(2) == 0 {
		b = m.bytes(len(b))
	}
	if err := m.writeNew(p.dir, p.name, b); err != nil {
		return "", err
	}
	return p.String(), setTimes(p, p.st.Atim, p.st.Mtim)
}

// replace changes a file as a careful editor does: a new one takes the name.
func (m *Mutator) replace() (string, error) {
	p, err := m.pick(isRegular)
	if err != nil {
		return "", err
	}
	b, err := m.content(p)
	if err != nil {
		return "", err
	}
	const beside = ".beside"
	if err := m.writeNew(p.dir, beside, append(b, "changed"...)); err != nil {
		return "", err
	}
	if err := unix.Renameat(p.dir, beside, p.dir, p.name); err != nil {
		_ = unix.Unlinkat(p.dir, beside, 0) // stays if the directory is append-only
		return "", err
	}
	return p.String(), nil
}

// retype puts an entry of another type in the place of one.
func (m *Mutator) retype() (string, error) {
	p, err := m.pickAny()
	if err != nil {
		return "", err
	}
	if err := m.removeAll(p); err != nil {
		return "", err
	}
	if isDir(&p.st) {
		return p.String() + " to a file", m.writeNew(p.dir, p.name, m.bytes(10))
	}
	switch m.r.IntN(4) {
	case 0:
		return p.String() + " to a symbolic link", unix.Symlinkat(m.target(), p.dir, p.name)
	case 1:
		return p.String() + " to a FIFO", unix.Mknodat(p.dir, p.name, unix.S_IFIFO|0o622, 0)
	}
	if err := unix.Mkdirat(p.dir, p.name, 0o700); err != nil {
		return "", err
	}
	fd, err := unix.Openat(p.dir, p.name, dirFlags, 0)
	if err != nil {
		return "", err
	}
	return p.String() + " to a directory", m.writeNew(m.hold(fd), "inside", m.bytes(10))
}
