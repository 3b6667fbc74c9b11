package files

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/transport"
	"golang.org/x/sys/unix"
)

func numberedFrame(t transport.Type, number uint64, path string) frame {
	return frame{t, append(binary.BigEndian.AppendUint64(nil, number), path...)}
}

func asideFrame(number uint64, path string) frame {
	return numberedFrame(transport.TypeFileAside, number, path)
}

func backFrame(number uint64, path string) frame {
	return numberedFrame(transport.TypeFileBack, number, path)
}

// copyFrame copies what should be content.
func copyFrame(offset, from uint64, content string) frame {
	be := binary.BigEndian
	b := be.AppendUint64(be.AppendUint64(nil, offset), from)
	return frame{transport.TypeFileCopy, append(be.AppendUint32(b, uint32(len(content))), sumOf(content)...)}
}

func holeFrame(offset, size uint64) frame {
	be := binary.BigEndian
	return frame{transport.TypeFileHole, be.AppendUint64(be.AppendUint64(nil, offset), size)}
}

// based is the entry with a basis.
func based(e entry, basis uint8, from string) entry {
	e.basis, e.from = basis, from
	return e
}

func TestSameFile(t *testing.T) {
	s := newStage(t)
	const size = 64 << 10
	s.pass(batchFrame("", whole("f", strings.Repeat("a", size))), entryFrame(hardlink("l", "f")))
	before := s.stat("f")
	e := dated(based(file("f", size-1), basisSame, ""))
	e.mode |= unix.S_ISUID
	s.pass(entryFrame(e), dataFrame(10, "bb"), holeFrame(16<<10, 16<<10), dataFrame(size-2, "c"), dataFrame(size-1, ""))
	want := []byte(strings.Repeat("a", size-1))
	copy(want[10:], "bb")
	copy(want[16<<10:32<<10], make([]byte, 16<<10))
	want[size-2] = 'c'
	s.holds("l", string(want))
	st := s.stat("f")
	if st.Ino != before.Ino || st.Nlink != 2 || st.Blocks*512 > size-16<<10 || st.Mode&0o7777 != 0o4644 || st.Mtim.Nsec != 7 {
		t.Errorf("%+v", st)
	}
	s.pass(entryFrame(based(file("f", 3*size), basisSame, "")), dataFrame(2*size, "d"), dataFrame(3*size, ""))
	s.holds("f", string(want)+strings.Repeat("\x00", size+1)+"d"+strings.Repeat("\x00", size-1))
}

func TestCopies(t *testing.T) {
	base := t.TempDir()
	write(t, base+"/b", "0123456789")
	s := newStage(t)
	s.UseBase(openHandle(t, base))
	s.pass(batchFrame("", whole("t", "abcdefghij")),
		entryFrame(based(file("f", 8), basisBase, "b")), copyFrame(0, 5, "567"), dataFrame(3, "xy"), copyFrame(6, 0, "01"), dataFrame(8, ""),
		entryFrame(based(file("g", 4), basisTree, "t")), copyFrame(1, 9, "j"), dataFrame(4, ""))
	s.holds("f", "567xy\x0001")
	s.holds("g", "\x00j\x00\x00")
	inode := s.stat("t").Ino
	s.pass(entryFrame(based(file("t", 3), basisTree, "t")), copyFrame(0, 7, "hij"), dataFrame(3, ""))
	s.holds("t", "hij")
	if s.stat("t").Ino == inode {
		t.Error("a copy is not a new inode")
	}
	s.holds("../../"+lastOf(base)+"/b", "0123456789")
}

func lastOf(path string) string { return path[strings.LastIndexByte(path, '/')+1:] }

// TestBaseChanged has copies that the file is not good for.
func TestBaseChanged(t *testing.T) {
	for name, fs := range map[string][]frame{
		"other content":  {entryFrame(based(file("f", 8), basisBase, "b")), copyFrame(0, 0, "012x")},
		"beyond its end": {entryFrame(based(file("f", 8), basisBase, "b")), copyFrame(0, 9, "9x")},
		"far beyond":     {entryFrame(based(file("f", 8), basisBase, "b")), copyFrame(0, maxSize, "9x")},
		"missing":        {entryFrame(based(file("f", 8), basisBase, "gone"))},
		"through a link": {entryFrame(based(file("f", 8), basisBase, "s/b"))},
		"a link":         {entryFrame(based(file("f", 8), basisBase, "l"))},
		"a FIFO":         {entryFrame(based(file("f", 8), basisBase, "fifo"))},
	} {
		t.Run(name, func(t *testing.T) {
			base := t.TempDir()
			write(t, base+"/b", "0123456789")
			must(t, os.Symlink(".", base+"/s"))
			must(t, os.Symlink("b", base+"/l"))
			must(t, unix.Mkfifo(base+"/fifo", 0o600))
			s := newStage(t)
			s.UseBase(openHandle(t, base))
			if err := s.play(fs...); fault.KindOf(err) != fault.Copy || !strings.Contains(fault.HintOf(err), "again") {
				t.Errorf("err = %v", err)
			}
		})
	}
}

func TestHostileContent(t *testing.T) {
	same := func(fs ...frame) []frame {
		return append([]frame{batchFrame("", whole("f", "content")), entryFrame(based(file("f", 9), basisSame, ""))}, fs...)
	}
	tree := func(fs ...frame) []frame {
		return append([]frame{batchFrame("", whole("t", "content")), entryFrame(based(file("f", 9), basisTree, "t"))}, fs...)
	}
	cut := func(f frame, n int) frame { return frame{f.t, f.payload[:n]} }
	for name, fs := range map[string][]frame{
		"copy without a basis":    {entryFrame(file("f", 9)), copyFrame(0, 0, "c")},
		"copy with basis same":    same(copyFrame(0, 0, "c")),
		"copy without a file":     {copyFrame(0, 0, "c")},
		"copy of nothing":         tree(copyFrame(0, 0, "")),
		"copy of too much":        tree(frame{transport.TypeFileCopy, append(copyFrame(0, 0, "c").payload[:16], 0, 0x10, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8)}),
		"copy beyond the size":    tree(copyFrame(8, 0, "co")),
		"copy going back":         tree(dataFrame(4, "x"), copyFrame(4, 0, "c")),
		"copy from below 0":       tree(copyFrame(0, 1<<63, "c")),
		"copy cut short":          tree(cut(copyFrame(0, 0, "c"), 27)),
		"copy with a rest":        tree(frame{transport.TypeFileCopy, append(copyFrame(0, 0, "c").payload, 0)}),
		"hole without same":       {entryFrame(file("f", 9)), holeFrame(0, 1)},
		"hole without a file":     {holeFrame(0, 1)},
		"hole of nothing":         same(holeFrame(0, 0)),
		"hole beyond the size":    same(holeFrame(0, 10)),
		"hole that wraps":         same(holeFrame(5, 1<<64-3)),
		"hole going back":         same(dataFrame(4, "x"), holeFrame(0, 5)),
		"hole cut short":          same(cut(holeFrame(0, 1), 15)),
		"offset cut short":        same(cut(holeFrame(0, 1), 7)),
		"same without a file":     {entryFrame(based(file("f", 9), basisSame, ""))},
		"same is a directory":     {entryFrame(folder("f")), entryFrame(based(file("f", 9), basisSame, ""))},
		"same is a device":        {entryFrame(entry{path: "f", mode: unix.S_IFCHR | 0o600, major: 1, minor: 3}), entryFrame(based(file("f", 9), basisSame, ""))},
		"same is a symlink":       {batchFrame("", whole("t", "x")), entryFrame(symlink("f", "t")), entryFrame(based(file("f", 9), basisSame, ""))},
		"same with a path":        {batchFrame("", whole("f", "x")), entryFrame(based(file("f", 9), basisSame, "f"))},
		"no base":                 {entryFrame(based(file("f", 9), basisBase, "b"))},
		"base is dot dot":         {entryFrame(based(file("f", 9), basisBase, "../b"))},
		"base without a path":     {entryFrame(based(file("f", 9), basisBase, ""))},
		"unknown basis":           {entryFrame(based(file("f", 9), 4, ""))},
		"basis of a directory":    {entryFrame(based(folder("d"), basisSame, ""))},
		"unknown flags":           {entryFrame(entry{path: "f", mode: unix.S_IFREG, flags: 1})},
		"flags of a symlink":      {entryFrame(entry{path: "f", mode: unix.S_IFLNK, target: "t", flags: flagImmutable})},
		"aside of nothing":        {asideFrame(1, "missing")},
		"aside of the root":       {asideFrame(1, "")},
		"aside of dot dot":        {asideFrame(1, "../x")},
		"aside through a symlink": {entryFrame(symlink("s", "/")), asideFrame(1, "s/tmp")},
		"aside twice":             {entryFrame(folder("a")), entryFrame(folder("b")), asideFrame(1, "a"), asideFrame(1, "b")},
		"aside cut short":         {cut(asideFrame(1, "a"), 7)},
		"back of nothing":         {backFrame(1, "a")},
		"back of another":         {entryFrame(folder("a")), asideFrame(1, "a"), backFrame(2, "a")},
		"back on something":       {entryFrame(folder("a")), entryFrame(folder("b")), asideFrame(1, "a"), backFrame(1, "b")},
		"back to dot dot":         {entryFrame(folder("a")), asideFrame(1, "a"), backFrame(1, "../a")},
		"back through a symlink":  {entryFrame(folder("a")), asideFrame(1, "a"), entryFrame(symlink("s", "/")), backFrame(1, "s/vzkit")},
		"back twice":              {entryFrame(folder("a")), asideFrame(1, "a"), backFrame(1, "a"), backFrame(1, "b")},
		"malformed seed":          nil,
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t)
			wire := recorded(1, fs...)
			if fs == nil {
				wire = new(tape)
				wire.json(transport.TypeFilesBegin, map[string]any{"pass": 1, "seed": "12345678123456789"})
			}
			if _, err := wire.receive(t.Context(), s.Target); fault.KindOf(err) != fault.Protocol {
				t.Errorf("err = %v", err)
			}
		})
	}
}

// TestAside exchanges two directories and moves a file, with the times of all
// as they were.
func TestAside(t *testing.T) {
	s := newStage(t)
	s.pass(entryFrame(dated(folder("a"))), entryFrame(dated(folder("a/aa"))), batchFrame("a/aa", whole("f", "1")),
		entryFrame(dated(folder("bb"))), batchFrame("bb", whole("g", "2"), whole("doomed", "3")))
	inode := s.stat("a/aa/f").Ino
	s.pass(asideFrame(1, "a"), asideFrame(1<<63, "bb"), backFrame(1, "bb"), backFrame(1<<63, "a"),
		asideFrame(1, "a/g"), backFrame(1, "bb/aa/h"), asideFrame(7, "a/doomed"))
	s.holds("bb/aa/f", "1")
	s.holds("bb/aa/h", "2")
	s.lacks("a/g")
	s.lacks("a/doomed")
	if left, err := filepath.Glob(s.dir + "/" + asidePrefix + "*"); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	if s.stat("bb/aa/f").Ino != inode {
		t.Error("a file was not moved but made")
	}
	for path, mtime := range map[string]int64{"a": 2, "bb": 1, "bb/aa": 4} {
		if st := s.stat(path); st.Mtim.Sec != 1e9+mtime {
			t.Errorf("%s: times %+v", path, st.Mtim)
		}
	}
	s.pass(asideFrame(1, "a"), batchFrame("", whole("a", "file")), backFrame(1, "a2"))
	s.holds("a", "file")
}

// TestAsideIsDiscarded ends a pass while something is aside.
func TestAsideIsDiscarded(t *testing.T) {
	dir := t.TempDir()
	target, err := NewTarget(dir + "/staging")
	must(t, err)
	_, err = recorded(1, entryFrame(folder("d")), batchFrame("d", whole("f", "x")), asideFrame(1, "d"), deleteFrame("missing")).receive(t.Context(), target)
	if fault.KindOf(err) != fault.Protocol {
		t.Errorf("err = %v", err)
	}
	must(t, target.Discard())
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}
