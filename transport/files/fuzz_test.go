package files

import (
	"bytes"
	"testing"

	"golang.org/x/sys/unix"
)

// FuzzParseEntry: what is accepted encodes to the same bytes.
func FuzzParseEntry(f *testing.F) {
	full := file("d/f", 5)
	full.xattrs = []xattr{{"user.a", []byte("b")}, {"trusted.b", nil}}
	full.mtime = unix.Timespec{Sec: -1, Nsec: 999999999}
	for _, e := range []entry{full, folder(""), symlink("s", "t"), hardlink("a", "b")} {
		f.Add(e.append(nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := parseEntry(b)
		if err == nil && !bytes.Equal(e.append(nil), b) {
			t.Errorf("%+v does not encode to %x", e, b)
		}
	})
}

// FuzzReceive: whatever arrives, nothing outside changes and the staging
// directory can be removed.
func FuzzReceive(f *testing.F) {
	for _, frames := range [][]frame{
		{entryFrame(folder("")), entryFrame(file("f", 9)), dataFrame(3, "abc"), dataFrame(9, ""), entryFrame(hardlink("g", "f"))},
		{entryFrame(folder("d")), entryFrame(symlink("d/s", "../../victim")), entryFrame(hardlink("d/s", "d/s"))},
		{entryFrame(folder("d")), entryFrame(symlink("d", "/")), deleteFrame("d")},
		{entryFrame(entry{path: "n", mode: unix.S_IFCHR | 0o600, major: 1, minor: 3})},
	} {
		f.Add(new(tape).frames(frames...).Bytes())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		dir := t.TempDir()
		write(t, dir+"/victim", "whole")
		before := snap(t, dir)
		target, err := NewTarget(dir + "/staging")
		must(t, err)
		wire := new(tape)
		wire.Write(b)
		if _, err := wire.receive(t.Context(), target); err == nil {
			_ = target.Finish() // the root may not have come
		}
		must(t, target.Discard())
		after := snap(t, dir)
		delete(before, "") // its mtime
		delete(after, "")
		compareSnapshots(t, before, after)
	})
}
