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
		{entryFrame(folder("d")), batchFrame("d", whole("f", "x"), taken("g", basisTree, "d/f", "x")), asideFrame(1, "d"), backFrame(1, "e")},
		{batchFrame("", whole("f", "abc")), entryFrame(based(file("f", 5), basisSame, "")), holeFrame(1, 2), dataFrame(5, "")},
		{batchFrame("", whole("t", "abc")), entryFrame(based(file("f", 2), basisTree, "t")), copyFrame(0, 1, "bc"), dataFrame(2, "")},
		{entryFrame(flagged(folder(""), flagImmutable)), batchFrame("", flaggedFile("f", flagAppend)), entryFrame(hardlink("g", "f"))},
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

// FuzzParseBatch: what is accepted encodes to the same bytes, and nothing is
// read beyond the payload.
func FuzzParseBatch(f *testing.F) {
	odd := whole("odd", "content")
	odd.xattrs = []xattr{{"user.a", []byte("b")}}
	same := whole("same", "x")
	same.basis = basisSame
	for _, b := range []frame{
		batchFrame(""), batchFrame("d", whole("f", "")), batchFrame("d/e", odd, same, taken("t", basisTree, "a/b", "x")),
		batchFrame("", taken("t", basisBase, "b", "x"), packed{folder("d"), ""}),
	} {
		f.Add(b.payload)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		dir, rest, err := parseBatchHead(b)
		if err != nil {
			return
		}
		again, tree := appendBatchHead(nil, dir), false
		reads := readsTree(rest)
		for len(rest) > 0 {
			e, content, next, err := parseBatchFile(rest)
			if err != nil {
				return
			}
			again = appendBatchFile(again, e, content)
			tree = tree || e.basis == basisTree
			rest = next
		}
		if !bytes.Equal(again, b) {
			t.Errorf("%x encodes to %x", b, again)
		}
		if tree != reads {
			t.Errorf("readsTree is %v of %x", reads, b)
		}
	})
}
