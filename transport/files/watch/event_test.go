package watch

import (
	"encoding/binary"
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

// A record is an information record as the kernel writes it.
func record(kind byte, handle []byte, name string) []byte {
	b := []byte{kind, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8}
	b = binary.NativeEndian.AppendUint32(b, uint32(len(handle)))
	b = binary.NativeEndian.AppendUint32(b, ino32Gen)
	b = append(b, handle...)
	if name != "" {
		b = append(b, name+"\x00"...)
	}
	b = append(b, make([]byte, -len(b)&3)...)
	binary.NativeEndian.PutUint16(b[2:], uint16(len(b)))
	return b
}

func message(mask uint64, records ...[]byte) []byte {
	b := make([]byte, metadataLen)
	for _, r := range records {
		b = append(b, r...)
	}
	binary.NativeEndian.PutUint32(b, uint32(len(b)))
	b[4] = unix.FANOTIFY_METADATA_VERSION
	binary.NativeEndian.PutUint16(b[6:], metadataLen)
	binary.NativeEndian.PutUint64(b[8:], mask)
	return b
}

func handle(ino uint32) []byte {
	return binary.NativeEndian.AppendUint32(binary.NativeEndian.AppendUint32(nil, ino), 99)
}

func modified() []byte {
	return message(unix.FAN_MODIFY, record(unix.FAN_EVENT_INFO_TYPE_DFID_NAME, handle(7), "name"),
		record(unix.FAN_EVENT_INFO_TYPE_FID, handle(8), ""))
}

func TestDecode(t *testing.T) {
	self := message(unix.FAN_ATTRIB, record(unix.FAN_EVENT_INFO_TYPE_DFID_NAME, handle(7), "."))
	buf := append(append(modified(), self...), message(unix.FAN_Q_OVERFLOW)...)
	var got []event
	ok(t, each(buf, ext4Inode, func(e event) { got = append(got, e) }))
	if len(got) != 3 {
		t.Fatalf("%d events", len(got))
	}
	if e := got[0]; e.dir != 7 || string(e.name) != "name" || e.file != 8 || !e.hasFile || e.overflow {
		t.Errorf("modify: %+v", e)
	}
	if e := got[1]; e.dir != 7 || !e.hasDir || e.name != nil || e.hasFile {
		t.Errorf("directory itself: %+v", e)
	}
	if !got[2].overflow {
		t.Errorf("overflow: %+v", got[2])
	}
}

// TestMalformed cuts an event at every byte, and has what is not understood.
func TestMalformed(t *testing.T) {
	whole := modified()
	bad := map[string][]byte{
		"no records":    message(unix.FAN_MODIFY),
		"unknown kind":  message(unix.FAN_MODIFY, record(77, handle(7), "")),
		"other handle":  message(unix.FAN_MODIFY, record(unix.FAN_EVENT_INFO_TYPE_FID, handle(7)[:4], "")),
		"name no end":   message(unix.FAN_MODIFY, record(unix.FAN_EVENT_INFO_TYPE_DFID_NAME, handle(7), "")),
		"record length": message(unix.FAN_MODIFY, append([]byte{1, 0, 3}, make([]byte, 25)...)),
	}
	for n := 1; n < len(whole); n++ {
		bad["cut at "+itoa(n)] = whole[:n]
		short := append([]byte(nil), whole[:n]...)
		if n >= metadataLen {
			binary.NativeEndian.PutUint32(short, uint32(n))
			if n != metadataLen+len(record(2, handle(7), "name")) { // there, a whole event ends
				bad["short by its own length "+itoa(n)] = short
			}
		}
	}
	for name, buf := range bad {
		if err := each(buf, ext4Inode, func(event) {}); !errors.Is(err, errMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzEach(f *testing.F) {
	f.Add(modified())
	f.Add(message(unix.FAN_Q_OVERFLOW))
	f.Fuzz(func(t *testing.T, buf []byte) {
		if each(buf, xfsInode, func(e event) {
			if !e.overflow && !e.hasDir && !e.hasFile {
				t.Error("event says nothing")
			}
		}) == nil && len(buf)%4 == 1 && len(buf) < metadataLen && len(buf) > 0 {
			t.Error("less than an event was taken")
		}
	})
}

func TestLayouts(t *testing.T) {
	long := make([]byte, 24)
	binary.NativeEndian.PutUint64(long, 1<<40+5)
	for _, c := range []struct {
		read layout
		kind int32
		h    []byte
		want uint64
		ok   bool
	}{
		{ext4Inode, 1, handle(12), 12, true},
		{ext4Inode, 2, append(handle(12), handle(13)...), 12, true},
		{ext4Inode, 1, long[:12], 0, false},
		{ext4Inode, 0x81, long[:12], 0, false},
		{xfsInode, 1, handle(12), 12, true},
		{xfsInode, 0x81, long[:12], 1<<40 + 5, true},
		{xfsInode, 0x82, long, 1<<40 + 5, true},
		{xfsInode, 0x81, long[:11], 0, false},
		{xfsInode, 0x4d, long, 0, false},
	} {
		if got, ok := c.read(c.kind, c.h); got != c.want || ok != c.ok {
			t.Errorf("type %#x, %d bytes: %d, %v", c.kind, len(c.h), got, ok)
		}
	}
}
