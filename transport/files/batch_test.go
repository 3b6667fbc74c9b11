package files

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/transport"
	"github.com/zeebo/xxh3"
	"golang.org/x/sys/unix"
)

const testSeed = 0x1a2b3c4d5e6f7081

// packed is a file in a batch: its content, or what stands for it.
type packed struct {
	entry
	content string
}

// whole is a file with its content.
func whole(name, content string) packed { return packed{file(name, int64(len(content))), content} }

// taken is a file whose content comes from another one, and has the sum of it.
func taken(name string, basis uint8, from, content string) packed {
	e := file(name, int64(len(content)))
	e.basis, e.from = basis, from
	return packed{e, string(sumOf(content))}
}

func sumOf(content string) []byte {
	return binary.BigEndian.AppendUint64(nil, xxh3.HashSeed([]byte(content), testSeed))
}

func batchFrame(dir string, files ...packed) frame {
	b := appendBatchHead(nil, dir)
	for _, f := range files {
		b = appendBatchFile(b, &f.entry, []byte(f.content))
	}
	return frame{transport.TypeFileBatch, b}
}

// recorded is a pass with matching counts.
func recorded(pass int, fs ...frame) *tape {
	p, end := new(tape), passEnd{}
	p.json(transport.TypeFilesBegin, map[string]any{"pass": pass, "seed": fmt.Sprintf("%x", uint64(testSeed))})
	for _, f := range fs {
		p.WriteFrame(f.t, f.payload)
		switch f.t {
		case transport.TypeFileEntry:
			end.Entries++
		case transport.TypeFileDelete:
			end.Deleted++
		case transport.TypeFileData:
			end.Bytes += uint64(max(0, len(f.payload)-8))
		case transport.TypeFileBatch:
			_, rest, _ := parseBatchHead(f.payload)
			for len(rest) > 0 {
				e, content, next, err := parseBatchFile(rest)
				if err != nil {
					break
				}
				end.Entries++
				if !e.copied() {
					end.Bytes += uint64(len(content))
				}
				rest = next
			}
		}
	}
	p.json(transport.TypeFilesEnd, end)
	return p
}

// stage is a target and the number of its next pass.
type stage struct {
	*Target
	t   *testing.T
	dir string
	n   int
}

func newStage(t *testing.T) *stage {
	t.Helper()
	return stageIn(t, t.TempDir())
}

func stageIn(t *testing.T, dir string) *stage {
	t.Helper()
	target, err := NewTarget(dir + "/staging")
	must(t, err)
	t.Cleanup(func() { must(t, target.Discard()) })
	return &stage{target, t, dir + "/staging", 0}
}

func (s *stage) play(fs ...frame) error {
	s.n++
	_, err := recorded(s.n, fs...).receive(s.t.Context(), s.Target)
	return err
}

func (s *stage) pass(fs ...frame) {
	s.t.Helper()
	if err := s.play(fs...); err != nil {
		s.t.Fatalf("pass %d: %v", s.n, err)
	}
}

func (s *stage) stat(path string) (st unix.Stat_t) {
	s.t.Helper()
	must(s.t, unix.Lstat(s.dir+"/"+path, &st))
	return st
}

func (s *stage) holds(path, content string) {
	s.t.Helper()
	got, err := os.ReadFile(s.dir + "/" + path)
	if err != nil || string(got) != content {
		s.t.Errorf("%s: %d bytes %.40q, %v; want %d bytes %.40q", path, len(got), got, err, len(content), content)
	}
}

func (s *stage) lacks(path string) {
	s.t.Helper()
	if _, err := os.Lstat(s.dir + "/" + path); !errors.Is(err, os.ErrNotExist) {
		s.t.Errorf("%s is there: %v", path, err)
	}
}

// dated is the entry with times that nobody's clock shows.
func dated(e entry) entry {
	e.atime, e.mtime = unix.Timespec{Sec: 1e9, Nsec: 5}, unix.Timespec{Sec: 1e9 + int64(len(e.path)), Nsec: 7}
	return e
}

// TestBatches fills many directories, then changes files in them.
func TestBatches(t *testing.T) {
	s := newStage(t)
	var first, second []frame
	for d := range 60 {
		dir := fmt.Sprintf("d%d", d)
		first = append(first, entryFrame(dated(folder(dir))))
		for b := range 3 {
			var files []packed
			for f := range 10 {
				p := whole(fmt.Sprintf("b%df%d", b, f), strings.Repeat("x", d*f))
				p.entry = dated(p.entry)
				files = append(files, p)
			}
			first = append(first, batchFrame(dir, files...))
		}
		same := whole("b0f1", "new")
		same.basis = basisSame
		second = append(second, batchFrame(dir, same, whole("b1f1", "newer")))
	}
	s.pass(append([]frame{entryFrame(folder(""))}, first...)...)
	for d := range 60 {
		st := s.stat(fmt.Sprintf("d%d/b2f9", d))
		if st.Size != int64(9*d) || st.Mode != unix.S_IFREG|0o644 || st.Mtim.Sec != 1e9+4 || st.Mtim.Nsec != 7 || st.Atim.Nsec != 5 {
			t.Errorf("file: %+v", st)
		}
	}
	before := make([]unix.Stat_t, 60)
	for d := range before {
		before[d] = s.stat(fmt.Sprintf("d%d/b0f1", d))
	}
	s.pass(second...)
	for d := range 60 {
		dir := fmt.Sprintf("d%d", d)
		if st := s.stat(dir); st.Mtim.Sec != 1e9+int64(len(dir)) || st.Mode&0o7777 != 0o755 {
			t.Errorf("directory %s: %+v", dir, st)
		}
		if st := s.stat(dir + "/b0f1"); st.Ino != before[d].Ino {
			t.Errorf("%s has a new inode", dir)
		}
		s.holds(dir+"/b0f1", "new")
		s.holds(dir+"/b1f1", "newer")
	}
}

// TestBatchMetadata has files that differ from what a new inode has, in a
// directory that hands things down.
func TestBatchMetadata(t *testing.T) {
	s := newStage(t)
	dir := folder("d")
	dir.mode |= unix.S_ISGID
	dir.gid = 77
	dir.xattrs = []xattr{{"system.posix_acl_default", probeACL()}}
	plain, odd, odd2 := whole("plain", "a"), whole("odd", "b"), whole("odd2", "")
	odd.mode, odd.uid, odd.gid = unix.S_IFREG|0o6711, 5, 6
	odd.xattrs = []xattr{{"security.capability", netRaw()}, {"user.x", []byte("y")}}
	odd2.mode = unix.S_IFREG | 0o1777
	s.pass(entryFrame(dir))
	s.pass(batchFrame("d", plain, odd, odd2))
	s.pass(batchFrame("d", plain, odd, odd2))
	for _, e := range []packed{plain, odd, odd2} {
		st := s.stat("d/" + e.path)
		if st.Mode != e.mode || st.Uid != e.uid || st.Gid != e.gid {
			t.Errorf("%s: mode %o owner %d:%d", e.path, st.Mode, st.Uid, st.Gid)
		}
		xs, err := newXattrIO().read(s.dir + "/d/" + e.path)
		if err != nil || fmt.Sprint(xs) != fmt.Sprint(e.xattrs) {
			t.Errorf("%s: attributes %v, %v", e.path, xs, err)
		}
	}
}

// TestBatchOrder has frames follow batches that they depend on.
func TestBatchOrder(t *testing.T) {
	s := newStage(t)
	var fs []frame
	for i := range 100 {
		d := fmt.Sprintf("d%d", i)
		fs = append(fs,
			entryFrame(dated(folder(d))), batchFrame(d, whole("a", "1"), whole("b", "2"), whole("c", "3")),
			entryFrame(hardlink("link"+d, d+"/a")),
			deleteFrame(d+"/b"),
			batchFrame(d, whole("b", "4")),
			entryFrame(symlink(d+"/c", "x")),
			entryFrame(dated(folder(d+"e"))), batchFrame(d+"e", whole("f", "5")),
			entryFrame(file(d+"/late", 0)), dataFrame(0, ""), // back in a directory that has been left
			asideFrame(uint64(i), d+"e"), backFrame(uint64(i), "moved"+d),
			entryFrame(folder("root"+d)), batchFrame("root"+d, whole("x", "6"), whole("y", "7")), batchFrame("", whole("root"+d, "8")),
		)
	}
	s.pass(fs...)
	for i := range 100 {
		d := fmt.Sprintf("d%d", i)
		s.holds("link"+d, "1")
		s.holds(d+"/b", "4")
		s.holds("moved"+d+"/f", "5")
		s.holds("root"+d, "8")
		if st := s.stat(d); st.Mtim.Sec != 1e9+int64(len(d)) {
			t.Errorf("%s: times %+v", d, st.Mtim)
		}
		if st := s.stat("moved" + d); st.Mtim.Sec != 1e9+int64(len(d+"e")) {
			t.Errorf("moved%s: times %+v", d, st.Mtim)
		}
		if st := s.stat(d + "/c"); st.Mode&unix.S_IFMT != unix.S_IFLNK {
			t.Errorf("%s/c: mode %o", d, st.Mode)
		}
	}
}

// TestBatchTakesFromTree turns files around, each of which the next one needs.
func TestBatchTakesFromTree(t *testing.T) {
	s := newStage(t)
	const n = 50
	var first, second []frame
	text := func(i int) string { return fmt.Sprintf("log %d", i) }
	for i := range n {
		d := fmt.Sprintf("d%02d", i)
		first = append(first, entryFrame(folder(d)), batchFrame(d, whole("log", text(i))), batchFrame(d, taken("copy", basisTree, d+"/log", text(i))))
		p := taken("log", basisTree, fmt.Sprintf("d%02d/log", i+1), text(i+1))
		if i == n-1 {
			p = whole("log", text(n))
		}
		second = append(second, batchFrame(d, p, taken("copy", basisTree, d+"/copy", text(i))))
	}
	s.pass(first...)
	s.pass(second...)
	for i := range n {
		s.holds(fmt.Sprintf("d%02d/log", i), text(i+1))
		s.holds(fmt.Sprintf("d%02d/copy", i), text(i))
	}
}

func TestBatchTakesFromBase(t *testing.T) {
	base := t.TempDir()
	large := strings.Repeat("large", copySize/2)
	write(t, base+"/d/f", "content")
	write(t, base+"/large", large)
	must(t, unix.Mkfifo(base+"/fifo", 0o600))
	must(t, os.Symlink("d/f", base+"/symlink"))
	must(t, os.Symlink("d", base+"/way"))
	before := snap(t, base)
	s := newStage(t)
	s.UseBase(openHandle(t, base))
	s.pass(batchFrame("", taken("a", basisBase, "d/f", "content"), taken("b", basisBase, "large", large)))
	s.holds("a", "content")
	s.holds("b", large)
	for name, p := range map[string]packed{
		"other sum":           taken("x", basisBase, "d/f", "CONTENT"),
		"other size":          taken("x", basisBase, "d/f", "content "),
		"other sum, large":    taken("x", basisBase, "large", strings.ToUpper(large)),
		"missing":             taken("x", basisBase, "d/g", "content"),
		"FIFO":                taken("x", basisBase, "fifo", "content"),
		"directory":           taken("x", basisBase, "d", "content"),
		"symlink":             taken("x", basisBase, "symlink", "content"),
		"through a symlink":   taken("x", basisBase, "way/f", "content"),
		"missing in the tree": taken("x", basisTree, "d/f", "content"),
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t)
			s.UseBase(openHandle(t, base))
			err := s.play(batchFrame("", p))
			if fault.KindOf(err) != fault.Copy || fault.HintOf(err) == "" || !strings.Contains(fmt.Sprint(err), p.from) {
				t.Errorf("err = %v", err)
			}
		})
	}
	compareSnapshots(t, before, snap(t, base))
}

func openHandle(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, unix.O_PATH, 0)
	must(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}

func TestHostileBatch(t *testing.T) {
	outside := t.TempDir()
	write(t, outside+"/victim", "whole")
	before := snap(t, outside)
	same := whole("f", "x")
	same.basis = basisSame
	device := packed{entry: entry{path: "n", mode: unix.S_IFCHR | 0o600, major: 1, minor: 3}}
	good := batchFrame("", whole("f", "content")).payload
	raw := func(b []byte) frame { return frame{transport.TypeFileBatch, b} }
	huge := append([]byte{0, 0}, 0xff, 0xff, 0xff, 0xff)
	big := whole("f", "x")
	big.size = maxSize
	for name, fs := range map[string][]frame{
		"dot dot":             {batchFrame("..", whole("f", ""))},
		"absolute":            {batchFrame(outside, whole("f", ""))},
		"missing directory":   {batchFrame("d", whole("f", ""))},
		"file as a directory": {batchFrame("", whole("d", "")), entryFrame(folder("e")), batchFrame("d", whole("f", ""))},
		"name is dot dot":     {batchFrame("", whole("..", ""))},
		"name with a slash":   {entryFrame(folder("d")), batchFrame("", whole("d/f", ""))},
		"name upwards":        {batchFrame("", whole("../f", ""))},
		"no name":             {batchFrame("", whole("", ""))},
		"NUL":                 {batchFrame("", whole("a\x00", ""))},
		"through a symlink":   {entryFrame(symlink("s", outside)), batchFrame("s", whole("victim", "x"))},
		"swapped directory": {
			entryFrame(folder("d")), batchFrame("d", whole("f", "x")),
			entryFrame(symlink("d", outside)), batchFrame("d", whole("victim", "x")),
		},
		"swapped by aside": {
			entryFrame(folder("d")), batchFrame("d", whole("f", "x")), asideFrame(1, "d"),
			entryFrame(symlink("d", outside)), batchFrame("d", whole("victim", "x")),
		},
		"same is a symlink":   {entryFrame(symlink("f", outside+"/victim")), batchFrame("", same)},
		"same is a device":    {entryFrame(entry{path: "f", mode: unix.S_IFCHR | 0o600, major: 1, minor: 3}), batchFrame("", same)},
		"same is a FIFO":      {entryFrame(entry{path: "f", mode: unix.S_IFIFO | 0o600}), batchFrame("", same)},
		"same is missing":     {batchFrame("", same)},
		"directory":           {batchFrame("", packed{entry: folder("d")})},
		"device":              {batchFrame("", device)},
		"symlink":             {batchFrame("", packed{entry: symlink("s", "t")})},
		"hard link":           {batchFrame("", whole("f", ""), packed{entry: hardlink("l", "f")})},
		"no base":             {batchFrame("", taken("f", basisBase, "f", "x"))},
		"base is dot dot":     {batchFrame("", taken("f", basisBase, "../victim", "x"))},
		"tree is absolute":    {batchFrame("", taken("f", basisTree, outside+"/victim", "whole"))},
		"sum cut short":       {batchFrame("", packed{taken("f", basisTree, "g", "x").entry, "1234567"})},
		"content cut short":   {raw(good[:len(good)-1])},
		"entry cut short":     {raw(good[:20])},
		"length cut short":    {raw(good[:4])},
		"path cut short":      {raw([]byte{0, 9, 'd'})},
		"empty payload":       {raw(nil)},
		"huge length":         {raw(huge)},
		"huge size":           {batchFrame("", big)},
		"rest":                {raw(append(bytes.Clone(good), 0))},
		"within a file":       {entryFrame(file("g", 1)), batchFrame("", whole("f", "x"))},
		"content for a batch": {batchFrame("", whole("f", "x")), dataFrame(0, "x")},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t)
			if err := s.play(fs...); fault.KindOf(err) != fault.Protocol {
				t.Errorf("err = %v", err)
			}
		})
	}
	compareSnapshots(t, before, snap(t, outside))
}

// TestBatchErrors fills a file system from several goroutines, and counts those
// that are left.
func TestBatchErrors(t *testing.T) {
	mnt := t.TempDir()
	must(t, unix.Mount("tmpfs", mnt, "tmpfs", 0, "size=256k"))
	t.Cleanup(func() { unix.Unmount(mnt, unix.MNT_DETACH) })
	goroutines := runtime.NumGoroutine()
	s := stageIn(t, mnt)
	var fs []frame
	for i := range 200 {
		d := fmt.Sprintf("d%d", i)
		fs = append(fs, entryFrame(folder(d)), batchFrame(d, whole("f", strings.Repeat("x", 8<<10))))
	}
	err := s.play(fs...)
	if fault.KindOf(err) != fault.NoSpace || fault.HintOf(err) == "" || !strings.Contains(fmt.Sprint(err), `"d`) {
		t.Errorf("err = %v", err)
	}
	for range 100 {
		if runtime.NumGoroutine() <= goroutines {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("%d goroutines are left", runtime.NumGoroutine()-goroutines)
}

// TestBatchesInDeepTree is deeper than what may stay open.
func TestBatchesInDeepTree(t *testing.T) {
	s := newStage(t)
	var fs []frame
	path := ""
	for range 300 {
		path = strings.TrimPrefix(path+"/"+strings.Repeat("n", 30), "/")
		fs = append(fs, entryFrame(dated(folder(path))), batchFrame(path, whole("f", "x")))
	}
	s.pass(fs...)
	fs = nil
	for ; path != ""; path = path[:max(0, strings.LastIndexByte(path, '/'))] {
		fs = append(fs, batchFrame(path, whole("f", "y")))
	}
	s.pass(fs...)
	top := strings.Repeat("n", 30)
	s.holds(top+"/f", "y")
	if st := s.stat(top + "/" + top); st.Mtim.Sec != 1e9+61 {
		t.Errorf("times %+v", st.Mtim)
	}
}

// smallBatches is 10,000 files of 1 KiB in batches of 64.
func smallBatches() *tape {
	content := strings.Repeat("x", 1<<10)
	var fs []frame
	for d := range 100 {
		dir := fmt.Sprintf("d%d", d)
		fs = append(fs, entryFrame(folder(dir)))
		for f := 0; f < 100; f += 64 {
			var files []packed
			for i := f; i < min(100, f+64); i++ {
				files = append(files, whole(fmt.Sprintf("f%d", i), content))
			}
			fs = append(fs, batchFrame(dir, files...))
		}
	}
	return recorded(1, fs...)
}

// BenchmarkReceiveBatches writes 10,000 small files that come in batches.
func BenchmarkReceiveBatches(b *testing.B) {
	recorded := smallBatches()
	staging := b.TempDir() + "/staging"
	b.ReportAllocs()
	var cpu int64
	for b.Loop() {
		target, err := NewTarget(staging)
		if err != nil {
			b.Fatal(err)
		}
		wire := new(tape)
		wire.Write(recorded.Bytes())
		before := cpuTime()
		if _, err := wire.receive(context.Background(), target); err != nil {
			b.Fatal(err)
		}
		cpu += cpuTime() - before
		b.StopTimer()
		if err := target.Discard(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	b.ReportMetric(float64(cpu)/float64(b.N)/10000, "cpu-ns/file")
}

// cpuTime is that of this process so far.
func cpuTime() int64 {
	var r unix.Rusage
	unix.Getrusage(unix.RUSAGE_SELF, &r)
	return r.Utime.Nano() + r.Stime.Nano()
}

// netRaw is cap_net_raw=ep, revision 2 of linux/capability.h.
func netRaw() []byte {
	b := make([]byte, 20)
	binary.LittleEndian.PutUint32(b, 0x02000001)
	binary.LittleEndian.PutUint32(b[4:], 1<<13)
	return b
}
