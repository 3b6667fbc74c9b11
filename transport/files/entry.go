package files

import (
	"encoding/binary"
	"strings"

	"golang.org/x/sys/unix"
)

// Forms of a file-entry frame.
const (
	formObject = 1
	formLink   = 2
)

// Limits of the wire, see the package comment.
const (
	maxSize       = 1 << 60
	maxXattrs     = 1024
	maxXattrBytes = 512 << 10
	maxXattrValue = 64 << 10
	maxMajor      = 1<<12 - 1
	maxMinor      = 1<<20 - 1
	noID          = 1<<32 - 1 // chown(2): leave it as it is
)

// Where the content of a regular file comes from.
const (
	basisNone = iota
	basisSame // the file that is there
	basisTree // another one of the tree
	basisBase // one of the base
)

// entry is one file-entry frame.
type entry struct {
	path   string
	link   bool   // one more hard link to target; nothing below but target counts
	target string // of a symbolic or hard link

	mode, uid, gid uint32
	major, minor   uint32
	size           int64
	atime, mtime   unix.Timespec
	flags, project uint32
	basis          uint8
	from           string // the file that basisTree and basisBase mean
	xattrs         []xattr
}

type xattr struct {
	name  string
	value []byte
}

func (e *entry) kind() uint32  { return e.mode & unix.S_IFMT }
func (e *entry) regular() bool { return !e.link && e.kind() == unix.S_IFREG }
func (e *entry) isDir() bool   { return !e.link && e.kind() == unix.S_IFDIR }

// append adds the payload of the frame to b.
func (e *entry) append(b []byte) []byte {
	if e.link {
		return appendBytes(appendBytes(append(b, formLink), e.path), e.target)
	}
	b = appendBytes(append(b, formObject), e.path)
	be := binary.BigEndian
	for _, v := range []uint32{e.mode, e.uid, e.gid, e.major, e.minor} {
		b = be.AppendUint32(b, v)
	}
	b = be.AppendUint64(b, uint64(e.size))
	for _, t := range []unix.Timespec{e.atime, e.mtime} {
		b = be.AppendUint32(be.AppendUint64(b, uint64(t.Sec)), uint32(t.Nsec))
	}
	b = be.AppendUint32(be.AppendUint32(b, e.flags), e.project)
	b = appendBytes(append(b, e.basis), e.from)
	b = appendBytes(b, e.target)
	b = be.AppendUint16(b, uint16(len(e.xattrs)))
	for _, x := range e.xattrs {
		b = append(append(b, uint8(len(x.name))), x.name...)
		b = append(be.AppendUint32(b, uint32(len(x.value))), x.value...)
	}
	return b
}

func appendBytes(b []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(len(s))), s...)
}

// parseEntry reads the payload of a file-entry frame, keeps nothing of it and
// checks every field. Its errors are fault.Protocol.
func parseEntry(payload []byte) (*entry, error) {
	c := &cursor{rest: payload}
	e := &entry{}
	form := c.number(1)
	e.path = string(c.bytes(c.number(2)))
	switch form {
	case formObject:
		e.parseObject(c)
	case formLink:
		e.link = true
		e.target = string(c.bytes(c.number(2)))
	default:
		c.short = true
	}
	if c.short || len(c.rest) > 0 {
		return nil, hostile("malformed entry of %d bytes", len(payload))
	}
	if err := e.check(); err != nil {
		return nil, err
	}
	return e, nil
}

func (e *entry) parseObject(c *cursor) {
	for _, v := range []*uint32{&e.mode, &e.uid, &e.gid, &e.major, &e.minor} {
		*v = uint32(c.number(4))
	}
	e.size = int64(c.number(8))
	for _, t := range []*unix.Timespec{&e.atime, &e.mtime} {
		t.Sec = int64(c.number(8))
		t.Nsec = int64(c.number(4))
	}
	e.flags, e.project = uint32(c.number(4)), uint32(c.number(4))
	e.basis = uint8(c.number(1))
	e.from = string(c.bytes(c.number(2)))
	e.target = string(c.bytes(c.number(2)))
	for n := c.number(2); n > 0 && !c.short; n-- {
		name := string(c.bytes(c.number(1)))
		value := append([]byte{}, c.bytes(c.number(4))...)
		e.xattrs = append(e.xattrs, xattr{name, value})
	}
}

// check refuses what a sender of this package cannot mean.
func (e *entry) check() error {
	if e.link {
		return e.checkLink()
	}
	parts, err := splitPath(e.path)
	if err != nil {
		return err
	}
	if len(parts) == 0 && !e.isDir() {
		return hostile("root is no directory")
	}
	for _, ok := range []bool{
		e.mode&^(unix.S_IFMT|0o7777) == 0 && e.uid != noID && e.gid != noID,
		e.size >= 0 && e.size <= maxSize && (e.size == 0 || e.regular()),
		e.device() || e.major == 0 && e.minor == 0,
		e.major <= maxMajor && e.minor <= maxMinor,
		e.atime.Nsec < 1e9 && e.mtime.Nsec < 1e9,
		e.flags&^carriedFlags == 0 && (e.flags == 0 && e.project == 0 || e.regular() || e.isDir()),
		e.basisAllowed(),
		e.targetAllowed(),
		xattrsAllowed(e.xattrs),
	} {
		if !ok {
			return hostile("metadata of %s is not allowed", quoted(e.path))
		}
	}
	return nil
}

func (e *entry) checkLink() error {
	for _, path := range []string{e.path, e.target} {
		if _, _, err := splitEntry(path); err != nil {
			return err
		}
	}
	return nil
}

func (e *entry) device() bool {
	return e.kind() == unix.S_IFCHR || e.kind() == unix.S_IFBLK
}

func (e *entry) basisAllowed() bool {
	switch e.basis {
	case basisNone:
		return e.from == ""
	case basisSame:
		return e.regular() && e.from == ""
	case basisTree, basisBase:
		_, _, err := splitEntry(e.from)
		return e.regular() && err == nil
	}
	return false
}

// targetAllowed also refuses types that Linux does not have.
func (e *entry) targetAllowed() bool {
	switch e.kind() {
	case unix.S_IFLNK:
		return e.target != "" && len(e.target) <= maxTarget && strings.IndexByte(e.target, 0) < 0
	case unix.S_IFREG, unix.S_IFDIR, unix.S_IFCHR, unix.S_IFBLK, unix.S_IFIFO, unix.S_IFSOCK:
		return e.target == ""
	}
	return false
}

// cursor takes fields off a payload. Once one is cut short, all that follow are
// empty.
type cursor struct {
	rest  []byte
	short bool
}

func (c *cursor) bytes(n uint64) []byte {
	if c.short || n > uint64(len(c.rest)) {
		c.short = true
		return nil
	}
	b := c.rest[:n]
	c.rest = c.rest[n:]
	return b
}

// number takes a big endian number of size bytes, at most 8.
func (c *cursor) number(size int) (n uint64) {
	for _, b := range c.bytes(uint64(size)) {
		n = n<<8 | uint64(b)
	}
	return n
}
