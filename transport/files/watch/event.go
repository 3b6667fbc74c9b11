package watch

import (
	"bytes"
	"encoding/binary"
	"errors"

	"golang.org/x/sys/unix"
)

// Sizes in linux/fanotify.h.
const (
	metadataLen = 24               // struct fanotify_event_metadata
	infoLen     = 4 + 8 + 4 + 4    // header, fsid, and of the handle its length and type
	bufferLen   = 256 << 10        // some 2,500 events
	maxEventLen = 4096             // an event is shorter: 3 records of at most 20+128+256
	nearlyFull  = bufferLen - 4096 // a read that stops beyond this may have left events
)

var errMalformed = errors.New("malformed fanotify event")

// An event is what one event of the kernel says of a tree: a directory, an
// entry of it, an object that is no directory; any of them may be missing.
type event struct {
	dir, file       uint64
	hasDir, hasFile bool
	name            []byte // of the entry; none: the directory itself
	overflow        bool
}

// each calls do for every event in buf. The names are slices of buf.
func each(buf []byte, inode layout, do func(event)) error {
	for len(buf) > 0 {
		if len(buf) < metadataLen {
			return errMalformed
		}
		n := int(binary.NativeEndian.Uint32(buf))
		head := int(binary.NativeEndian.Uint16(buf[6:]))
		if n < head || head < metadataLen || n > len(buf) || buf[4] != unix.FANOTIFY_METADATA_VERSION {
			return errMalformed
		}
		e, err := decode(buf[head:n], inode)
		if err != nil {
			return err
		}
		e.overflow = binary.NativeEndian.Uint64(buf[8:])&unix.FAN_Q_OVERFLOW != 0
		if !e.overflow && !e.hasDir && !e.hasFile {
			return errMalformed
		}
		do(e)
		buf = buf[n:]
	}
	return nil
}

// decode reads the information records of one event.
func decode(records []byte, inode layout) (e event, err error) {
	for len(records) > 0 {
		if len(records) < infoLen {
			return e, errMalformed
		}
		n := int(binary.NativeEndian.Uint16(records[2:]))
		if n < infoLen || n > len(records) {
			return e, errMalformed
		}
		if err := e.add(records[0], records[12:n], inode); err != nil {
			return e, err
		}
		records = records[n:]
	}
	return e, nil
}

// add takes one record: a handle and, of an entry, its name.
func (e *event) add(kind byte, record []byte, inode layout) error {
	n := uint64(binary.NativeEndian.Uint32(record))
	if n > uint64(len(record)-8) {
		return errMalformed
	}
	ino, ok := inode(int32(binary.NativeEndian.Uint32(record[4:])), record[8:8+n])
	if !ok {
		return errMalformed
	}
	switch kind {
	case unix.FAN_EVENT_INFO_TYPE_FID:
		e.file, e.hasFile = ino, true
	case unix.FAN_EVENT_INFO_TYPE_DFID:
		e.dir, e.hasDir = ino, true
	case unix.FAN_EVENT_INFO_TYPE_DFID_NAME:
		e.dir, e.hasDir = ino, true
		return e.setName(record[8+n:])
	default:
		return errMalformed
	}
	return nil
}

// setName takes a name with its final zero and what pads it. The kernel calls
// an object that is itself a directory ".".
func (e *event) setName(padded []byte) error {
	name, _, ok := bytes.Cut(padded, []byte{0})
	if !ok || len(name) == 0 {
		return errMalformed
	}
	if string(name) != "." {
		e.name = name
	}
	return nil
}
