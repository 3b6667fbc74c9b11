package blocks

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/transport"
)

const small = 1 << 20 // size of images in these tests

func begin(pass int, frozen bool) frame {
	return frame{transport.TypeBlocksBegin, fmt.Sprintf(`{"pass":%d,"frozen":%v,"size":%d}`, pass, frozen, small)}
}

func end(data, holes int) frame {
	return frame{transport.TypeBlocksEnd, fmt.Sprintf(`{"data":%d,"holes":%d}`, data, holes)}
}

func data(at uint64, b string) frame {
	return frame{transport.TypeBlocksData, string(binary.BigEndian.AppendUint64(nil, at)) + b}
}

func holeAt(at, n uint64) frame {
	return frame{transport.TypeBlocksHole, string(binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, at), n))}
}

// full is so many blocks of a letter.
func full(letter string, blocks int) string { return strings.Repeat(letter, blocks*Block) }

func TestTarget(t *testing.T) {
	target, path := newTarget(t, small)
	ok(t, new(tape).put(t, begin(1, false), data(8192, full("a", 4)), data(0, full("b", 1)), end(5*Block, 0)).receive(t, target))
	if err := target.Finish(); err == nil {
		t.Error("finished without a last pass")
	}
	ok(t, new(tape).put(t, begin(2, true), data(8192, full("c", 1)), holeAt(12288, 8192), data(small-Block, full("d", 1)),
		end(2*Block, 2*Block)).receive(t, target))
	ok(t, target.Finish())
	ok(t, target.Sync())
	want := full("b", 1) + full("\x00", 1) + full("c", 1) + full("\x00", 2) + full("a", 1) + full("\x00", small/Block-7) + full("d", 1)
	if got, err := os.ReadFile(path); err != nil || string(got) != want {
		t.Error("the image has another content", err)
	}
	var st unix.Stat_t
	ok(t, unix.Stat(path, &st))
	if st.Blocks*512 != 4*Block || st.Mode&0o777 != 0o600 {
		t.Errorf("%d bytes on the disk, mode %o", st.Blocks*512, st.Mode)
	}
}

// What no honest sender sends is refused, wherever it comes.
func TestTargetRefuses(t *testing.T) {
	for name, frames := range map[string][]frame{
		"second pass first":    {begin(2, false)},
		"same pass again":      {begin(1, false), end(0, 0), begin(1, false)},
		"pass after the last":  {begin(1, true), end(0, 0), begin(2, true)},
		"another size":         {{transport.TypeBlocksBegin, `{"pass":1,"size":4096}`}},
		"no JSON":              {{transport.TypeBlocksBegin, `{`}},
		"data beyond":          {begin(1, false), data(small, full("x", 1))},
		"data across the end":  {begin(1, false), data(small-Block, full("x", 2))},
		"data far beyond":      {begin(1, false), data(1<<63, full("x", 1))},
		"data around":          {begin(1, false), data(1<<64-Block, full("x", 1))},
		"data unaligned":       {begin(1, false), data(512, full("x", 1))},
		"odd data":             {begin(1, false), data(0, "x")},
		"empty data":           {begin(1, false), data(0, "")},
		"short data":           {begin(1, false), {transport.TypeBlocksData, "1234567"}},
		"hole beyond":          {begin(1, false), holeAt(small, Block)},
		"hole across the end":  {begin(1, false), holeAt(Block, small)},
		"hole around":          {begin(1, false), holeAt(Block, 1<<64-Block)},
		"empty hole":           {begin(1, false), holeAt(0, 0)},
		"odd hole":             {begin(1, false), holeAt(0, 4097)},
		"long hole":            {begin(1, false), {transport.TypeBlocksHole, strings.Repeat("\x00", 17)}},
		"a file":               {begin(1, false), {transport.TypeFileDelete, "x"}},
		"a pass within a pass": {begin(1, false), begin(1, false)},
		"wrong counts":         {begin(1, false), data(0, full("x", 1)), end(2*Block, 0)},
		"counts without holes": {begin(1, false), holeAt(0, Block), end(0, 0)},
		"end is no JSON":       {begin(1, false), {transport.TypeBlocksEnd, `[]`}},
	} {
		target, path := newTarget(t, small)
		err := new(tape).put(t, frames...).receive(t, target)
		wantKind(t, name, err, fault.Protocol)
		if _, err := target.Receive(t.Context(), new(tape).conn(), []byte(begin(1, false).payload)); err == nil {
			t.Errorf("%s: goes on afterwards", name)
		}
		if info, err := os.Stat(path); err != nil || info.Size() != small {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
}

func TestTargetHearsTheEnd(t *testing.T) {
	target, _ := newTarget(t, small)
	if err := new(tape).put(t, begin(1, false), frame{transport.TypeAbort, ""}).receive(t, target); err != transport.ErrAbort {
		t.Error(err)
	}
	target, _ = newTarget(t, small)
	wantKind(t, "end of connection", new(tape).put(t, begin(1, false), data(0, full("x", 1))).receive(t, target), fault.Connect)
}

// Nothing that is there already is written to, wherever it leads.
func TestTargetIsNew(t *testing.T) {
	dir, err := os.Open(t.TempDir())
	ok(t, err)
	defer dir.Close()
	victim := filepath.Join(t.TempDir(), "victim")
	for name, make := range map[string]func(path string) error{
		"file": func(path string) error { return os.WriteFile(path, []byte("whole"), 0o600) },
		"link": func(path string) error { return os.Symlink(victim, path) },
		"pipe": func(path string) error { return unix.Mkfifo(path, 0o600) },
	} {
		ok(t, make(filepath.Join(dir.Name(), name)))
		_, err := NewTarget(dir, name, small)
		wantKind(t, name, err, fault.Copy)
	}
	if _, err := os.Lstat(victim); err == nil {
		t.Error("a link was followed")
	}
	for _, size := range []int64{0, -4096, 4097} {
		_, err := NewTarget(dir, "none", size)
		wantKind(t, fmt.Sprint("size ", size), err, fault.Protocol)
	}
}

func TestTargetDiskFull(t *testing.T) {
	dir := t.TempDir()
	ok(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "size=256k"))
	defer unix.Unmount(dir, unix.MNT_DETACH)
	d, err := os.Open(dir)
	ok(t, err)
	defer d.Close()
	target, err := NewTarget(d, "image", small)
	ok(t, err)
	defer target.Close()
	wantKind(t, "full", new(tape).put(t, begin(1, false), data(0, full("x", 100))).receive(t, target), fault.NoSpace)
}
