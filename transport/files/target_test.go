package files

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/transport"
	"golang.org/x/sys/unix"
)

func file(path string, size int64) entry {
	return entry{path: path, mode: unix.S_IFREG | 0o644, size: size}
}

func folder(path string) entry { return entry{path: path, mode: unix.S_IFDIR | 0o755} }

func symlink(path, target string) entry {
	return entry{path: path, mode: unix.S_IFLNK | 0o777, target: target}
}

func hardlink(path, target string) entry { return entry{path: path, link: true, target: target} }

// TestHostileSender plays tapes that no sender of ours records.
func TestHostileSender(t *testing.T) {
	outside := t.TempDir()
	write(t, outside+"/victim", "whole")
	before := snap(t, outside)
	long := strings.Repeat("x", 256)
	bad := func(change func(e *entry)) []frame {
		e := file("f", 0)
		change(&e)
		return []frame{entryFrame(e)}
	}
	for name, frames := range map[string][]frame{
		"dot dot":           {entryFrame(file("../f", 0))},
		"dot dot inside":    {entryFrame(folder("d")), entryFrame(file("d/../../f", 0))},
		"absolute":          {entryFrame(file(outside+"/f", 0))},
		"dot":               {entryFrame(file("./f", 0))},
		"empty component":   {entryFrame(folder("d")), entryFrame(file("d//f", 0))},
		"slash at the end":  {entryFrame(folder("d/"))},
		"NUL":               {entryFrame(file("a\x00b", 0))},
		"long component":    {entryFrame(file(long, 0))},
		"root as a file":    {entryFrame(file("", 0))},
		"through a symlink": {entryFrame(symlink("s", outside)), entryFrame(file("s/f", 0)), dataFrame(0, "")},
		"swapped directory": {
			entryFrame(folder("d")), entryFrame(file("d/f", 1)), dataFrame(0, "x"), dataFrame(1, ""),
			entryFrame(symlink("d", outside)), entryFrame(file("d/g", 0)), dataFrame(0, ""),
		},
		"deletes through a symlink": {entryFrame(symlink("s", outside)), deleteFrame("s/victim")},
		"directory on a symlink, then through": {
			entryFrame(symlink("s", outside)), entryFrame(symlink("t", "s")), entryFrame(folder("t/d")),
		},
		"links through a symlink": {entryFrame(symlink("s", outside)), entryFrame(hardlink("l", "s/victim"))},
		"links through a symlink within": {
			entryFrame(folder("d")), entryFrame(folder("d/e")), entryFrame(file("d/e/f", 0)), dataFrame(0, ""),
			entryFrame(symlink("s", "d")), entryFrame(hardlink("l", "s/e/f")),
		},
		"link to outside":           {entryFrame(hardlink("l", "../victim"))},
		"link to absolute":          {entryFrame(hardlink("l", outside+"/victim"))},
		"link to nothing":           {entryFrame(hardlink("l", "missing"))},
		"link to a directory":       {entryFrame(folder("d")), entryFrame(hardlink("l", "d"))},
		"link to the root":          {entryFrame(hardlink("l", ""))},
		"link as the root":          {entryFrame(hardlink("", "l"))},
		"entry without a parent":    {entryFrame(file("missing/f", 0))},
		"entry under a file":        {entryFrame(file("f", 0)), dataFrame(0, ""), entryFrame(file("f/g", 0))},
		"delete of nothing":         {deleteFrame("missing")},
		"delete of the root":        {deleteFrame("")},
		"delete of dot dot":         {deleteFrame("..")},
		"data before any entry":     {dataFrame(0, "x")},
		"data for a directory":      {entryFrame(folder("d")), dataFrame(0, "x")},
		"data for a link":           {entryFrame(file("f", 0)), dataFrame(0, ""), entryFrame(hardlink("g", "f")), dataFrame(0, "x")},
		"data beyond the size":      {entryFrame(file("f", 3)), dataFrame(0, "four")},
		"offset beyond the size":    {entryFrame(file("f", 3)), dataFrame(1<<63, "x")},
		"offset that wraps":         {entryFrame(file("f", 3)), dataFrame(1<<64-1, "xx")},
		"offset going back":         {entryFrame(file("f", 9)), dataFrame(4, "abc"), dataFrame(6, "x")},
		"end before the size":       {entryFrame(file("f", 9)), dataFrame(4, "")},
		"data cut short":            {entryFrame(file("f", 9)), {transport.TypeFileData, []byte("1234567")}},
		"file without an end":       {entryFrame(file("f", 1)), dataFrame(0, "x")},
		"entry before the end":      {entryFrame(file("f", 1)), entryFrame(folder("d"))},
		"foreign frame":             {{transport.TypePages, nil}},
		"empty entry":               {{transport.TypeFileEntry, nil}},
		"entry with a rest":         {{transport.TypeFileEntry, append(entryFrame(file("f", 0)).payload, 0)}},
		"unknown form":              {{transport.TypeFileEntry, []byte{3, 0, 1, 'f'}}},
		"negative size":             bad(func(e *entry) { e.size = -1 }),
		"huge size":                 bad(func(e *entry) { e.size = maxSize + 1 }),
		"size of a symlink":         bad(func(e *entry) { *e = symlink("s", "t"); e.size = 1 }),
		"no type":                   bad(func(e *entry) { e.mode = 0o644 }),
		"unknown type":              bad(func(e *entry) { e.mode = 0o170644 }),
		"unknown mode bits":         bad(func(e *entry) { e.mode |= 1 << 20 }),
		"owner that is left alone":  bad(func(e *entry) { e.uid = noID }),
		"group that is left alone":  bad(func(e *entry) { e.gid = noID }),
		"nanoseconds that mean now": bad(func(e *entry) { e.mtime.Nsec = unix.UTIME_NOW }),
		"device number of a file":   bad(func(e *entry) { e.major = 1 }),
		"device number too large":   bad(func(e *entry) { e.mode = unix.S_IFCHR; e.major = 4096 }),
		"target of a file":          bad(func(e *entry) { e.target = "x" }),
		"symlink without a target":  bad(func(e *entry) { *e = symlink("s", "") }),
		"target with NUL":           bad(func(e *entry) { *e = symlink("s", "a\x00") }),
		"target too long":           bad(func(e *entry) { *e = symlink("s", strings.Repeat("x", maxTarget+1)) }),
		"foreign attribute":         bad(func(e *entry) { e.xattrs = []xattr{{"system.evil", nil}} }),
		"attribute without a name":  bad(func(e *entry) { e.xattrs = []xattr{{"user.", nil}} }),
		"attribute twice":           bad(func(e *entry) { e.xattrs = []xattr{{"user.a", nil}, {"user.a", nil}} }),
		"attribute too large":       bad(func(e *entry) { e.xattrs = []xattr{{"user.a", make([]byte, maxXattrValue+1)}} }),
		"too many attributes":       {{transport.TypeFileEntry, manyAttributes()}},
	} {
		t.Run(name, func(t *testing.T) {
			target, err := NewTarget(t.TempDir() + "/staging")
			must(t, err)
			defer target.Discard()
			_, err = new(tape).frames(frames...).receive(t.Context(), target)
			if fault.KindOf(err) != fault.Protocol {
				t.Errorf("err = %v", err)
			}
			if _, again := new(tape).frames().receive(t.Context(), target); again == nil {
				t.Error("the target goes on after an error")
			}
			if target.Finish() == nil {
				t.Error("Finish after an error")
			}
		})
	}
	compareSnapshots(t, before, snap(t, outside))
}

// manyAttributes is an entry that announces 65535 attributes and has one.
func manyAttributes() []byte {
	e := file("f", 0)
	e.xattrs = []xattr{{"user.a", []byte("b")}}
	b := e.append(nil)
	at := bytes.Index(b, []byte("user.a")) - 3
	b[at], b[at+1] = 0xff, 0xff
	return b
}

func TestCountsAreCompared(t *testing.T) {
	for name, end := range map[string]any{
		"fewer entries": passEnd{Entries: 9},
		"huge":          map[string]any{"entries": uint64(1<<64 - 1)},
		"negative":      map[string]any{"entries": -1},
		"no object":     "x",
	} {
		t.Run(name, func(t *testing.T) {
			target, err := NewTarget(t.TempDir() + "/staging")
			must(t, err)
			defer target.Discard()
			wire := new(tape)
			wire.json(transport.TypeFilesBegin, passBegin{Pass: 1})
			wire.json(transport.TypeFilesEnd, end)
			if _, err := wire.receive(t.Context(), target); fault.KindOf(err) != fault.Protocol {
				t.Errorf("err = %v", err)
			}
		})
	}
}

func TestPassesComeInOrder(t *testing.T) {
	target, err := NewTarget(t.TempDir() + "/staging")
	must(t, err)
	defer target.Discard()
	wire := new(tape)
	wire.json(transport.TypeFilesBegin, passBegin{Pass: 2})
	if _, err := wire.receive(t.Context(), target); fault.KindOf(err) != fault.Protocol {
		t.Errorf("err = %v", err)
	}
}

// TestCutAnywhere ends the connection at every byte of a pass.
func TestCutAnywhere(t *testing.T) {
	frames := []frame{
		entryFrame(folder("")), entryFrame(folder("d")),
		entryFrame(file("d/f", 10)), dataFrame(2, "abc"), dataFrame(10, ""),
	}
	whole := new(tape).frames(frames...).Bytes()
	for n := range len(whole) {
		dir := t.TempDir() + "/staging"
		target, err := NewTarget(dir)
		must(t, err)
		wire := new(tape)
		wire.Write(whole[:n])
		if _, err := wire.receive(t.Context(), target); err == nil {
			t.Errorf("cut at %d goes unnoticed", n)
		}
		must(t, target.Discard())
		if _, err := os.Lstat(dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("staging is left: %v", err)
		}
	}
}

func TestAbort(t *testing.T) {
	target, err := NewTarget(t.TempDir() + "/staging")
	must(t, err)
	defer target.Discard()
	wire := new(tape).frames(entryFrame(file("f", 3)), frame{transport.TypeAbort, nil})
	if _, err := wire.receive(t.Context(), target); err != transport.ErrAbort {
		t.Errorf("err = %v", err)
	}
}

func TestReceiveInterrupted(t *testing.T) {
	target, err := NewTarget(t.TempDir() + "/staging")
	must(t, err)
	defer target.Discard()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := new(tape).frames().receive(ctx, target); fault.KindOf(err) != fault.Interrupted {
		t.Errorf("err = %v", err)
	}
}

func TestPassInterrupted(t *testing.T) {
	src := t.TempDir()
	write(t, src+"/f", string(make([]byte, 4*chunkSize)))
	source, err := NewSource(src, SourceOptions{})
	must(t, err)
	defer source.Close()
	ctx, cancel := context.WithCancel(t.Context())
	_, err = source.Pass(ctx, &tape{}, PassOptions{Pass: 1, Progress: func(s Stats) {
		if s.Bytes > 0 {
			cancel()
		}
	}})
	if fault.KindOf(err) != fault.Interrupted || !errors.Is(err, context.Canceled) {
		t.Errorf("err = %v", err)
	}
}

func TestNewTarget(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/full/f", "x")
	must(t, os.Symlink(t.TempDir(), dir+"/symlink"))
	for _, name := range []string{"full", "full/f", "symlink"} {
		if _, err := NewTarget(dir + "/" + name); fault.KindOf(err) != fault.Exists || fault.HintOf(err) == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := NewTarget(dir + "/missing/staging"); fault.KindOf(err) != fault.Copy {
		t.Errorf("err = %v", err)
	}
	must(t, os.Mkdir(dir+"/empty", 0o755))
	target, err := NewTarget(dir + "/empty")
	must(t, err)
	defer target.Discard()
	st, err := os.Stat(dir + "/empty")
	must(t, err)
	if st.Mode().Perm() != 0o700 {
		t.Errorf("mode %v before Finish", st.Mode())
	}
	must(t, target.Sync())
	if target.Finish() == nil {
		t.Error("Finish without a root")
	}
}

// TestDiskFull fills a file system with bytes, and another with inodes.
func TestDiskFull(t *testing.T) {
	src := t.TempDir()
	for _, name := range []string{"a", "b", "c", "d", "e", "f", "g", "h"} {
		write(t, src+"/"+name, strings.Repeat(name, 100<<10))
	}
	for _, options := range []string{"size=256k", "nr_inodes=6"} {
		t.Run(options, func(t *testing.T) {
			mnt := t.TempDir()
			must(t, unix.Mount("tmpfs", mnt, "tmpfs", 0, options))
			defer unix.Unmount(mnt, unix.MNT_DETACH)
			source, err := NewSource(src, SourceOptions{})
			must(t, err)
			defer source.Close()
			target, err := NewTarget(mnt + "/staging")
			must(t, err)
			defer target.Close()
			var wire tape
			_, err = source.Pass(t.Context(), &wire, PassOptions{Pass: 1})
			must(t, err)
			_, err = wire.receive(t.Context(), target)
			if fault.KindOf(err) != fault.NoSpace || fault.HintOf(err) == "" {
				t.Errorf("err = %v", err)
			}
			must(t, target.Discard())
		})
	}
}
