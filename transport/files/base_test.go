package files

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/transport"
	"github.com/vzkit/vzkit/transport/delta"
	"golang.org/x/sys/unix"
)

// told lists the base and tells a Known of it.
func told(t *testing.T, base *Base) *Known {
	t.Helper()
	var wire tape
	files, err := base.List(t.Context(), &wire)
	must(t, err)
	known := NewKnown()
	for {
		typ, payload, err := wire.ReadFrame()
		must(t, err)
		if typ == transport.TypeBaseEnd {
			var end baseEnd
			must(t, json.Unmarshal(payload, &end))
			if end.Files != files || known.Len() != files || wire.Len() != 0 {
				t.Fatalf("%d files listed, %d announced, %d known", files, end.Files, known.Len())
			}
			return known
		}
		must(t, known.Add(payload))
	}
}

func openBase(t *testing.T, dir string) *Base {
	t.Helper()
	base, err := OpenBase(dir)
	must(t, err)
	t.Cleanup(func() { must(t, base.Close()) })
	return base
}

func TestBase(t *testing.T) {
	dir := t.TempDir()
	contents := map[string]string{
		"f": "root", "d/f": "below", "d/e/\xff\n": "odd name", "big": strings.Repeat("x", 3<<20), "exact": strings.Repeat("y", 1<<20),
	}
	for i := range 300 {
		contents[fmt.Sprintf("many/%d", i)] = fmt.Sprint("content ", i)
	}
	for path, content := range contents {
		must(t, os.MkdirAll(filepath.Dir(dir+"/"+path), 0o755))
		write(t, dir+"/"+path, content)
	}
	must(t, os.Link(dir+"/f", dir+"/g"))
	write(t, dir+"/empty", "")
	must(t, os.Symlink("f", dir+"/s"))
	must(t, unix.Mkfifo(dir+"/fifo", 0o600))
	must(t, os.WriteFile(dir+"/huge", []byte{1}, 0o600))
	must(t, os.Truncate(dir+"/huge", maxSummed+1))
	must(t, unix.Mount("none", dir+"/d", "tmpfs", 0, "")) // hides what is there
	defer unix.Unmount(dir+"/d", 0)
	before, err := os.Lstat(dir)
	must(t, err)

	known := told(t, openBase(t, dir))
	for path, content := range contents {
		if size, ok := known.At(path); !ok || size != int64(len(content)) {
			t.Errorf("%q: size %d, %v", path, size, ok)
		}
		if at, ok := known.Find(int64(len(content)), sumContent([]byte(content))); !ok || contents[at] != content {
			t.Errorf("%q is found at %q", path, at)
		}
	}
	if size, ok := known.At("huge"); !ok || size != maxSummed+1 {
		t.Errorf("huge has size %d, %v", size, ok)
	}
	for _, path := range []string{"g", "empty", "s", "fifo", "", "no/f", "d", "d/no"} {
		if _, ok := known.At(path); ok {
			t.Errorf("%q is known", path)
		}
	}
	if _, ok := known.Find(5, sumContent([]byte("root"))); ok {
		t.Error("found with another size")
	}
	if _, ok := known.Find(maxSummed+1, [16]byte{}); ok {
		t.Error("found without a sum")
	}
	if after, err := os.Lstat(dir); err != nil || after.ModTime() != before.ModTime() {
		t.Error("base has changed")
	}
}

// locked is a tape for several writers.
type locked struct {
	sync.Mutex
	tape
	broken error
}

func (l *locked) WriteFrame(t transport.Type, parts ...[]byte) error {
	l.Lock()
	defer l.Unlock()
	if l.broken != nil {
		return l.broken
	}
	return l.tape.WriteFrame(t, parts...)
}

func signRequest(number uint32, path string) []byte {
	return appendBytes(binary.BigEndian.AppendUint32(nil, number), path)
}

func TestSigner(t *testing.T) {
	dir := t.TempDir()
	must(t, os.Mkdir(dir+"/d", 0o755))
	write(t, dir+"/d/f", strings.Repeat("0123456789", 1000))
	write(t, dir+"/sparse", "")
	must(t, os.Truncate(dir+"/sparse", 1<<30)) // more than one frame
	must(t, os.Symlink("d", dir+"/link"))
	must(t, os.Symlink("f", dir+"/d/link"))
	paths := []string{"d/f", "sparse", "link/f", "d/link", "d", "gone"}
	var wire locked
	s := openBase(t, dir).NewSigner(t.Context(), &wire)
	for i, path := range paths {
		must(t, s.Request(signRequest(uint32(i), path)))
	}
	must(t, s.Close())
	got := make(map[uint32][]byte)
	for last := 0; last < len(paths); {
		typ, payload, err := wire.ReadFrame()
		must(t, err)
		if typ != transport.TypeSignature || len(payload) > baseFrame+5 {
			t.Fatalf("frame %v of %d bytes", typ, len(payload))
		}
		n := binary.BigEndian.Uint32(payload)
		got[n] = append(got[n], payload[5:]...)
		last += int(payload[4])
	}
	for i, size := range []int64{10000, 1 << 30, 0, 0, 0, 0} {
		if sig, err := delta.Parse(got[uint32(i)]); err != nil || sig.Size() != size {
			t.Errorf("%q: %v, %v", paths[i], sig, err)
		}
	}
}

func TestSignerErrors(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/f", "content")
	base := openBase(t, dir)
	wire := &locked{broken: fault.New(fault.Connect, "broken")}
	s := base.NewSigner(t.Context(), wire)
	for _, b := range [][]byte{nil, {0, 0, 0, 1}, signRequest(1, "../f"), signRequest(1, "/f"), signRequest(1, ""), append(signRequest(1, "f"), 0)} {
		if err := s.Request(b); fault.KindOf(err) != fault.Protocol {
			t.Errorf("%q: %v", b, err)
		}
	}
	must(t, s.Request(signRequest(1, "f")))
	if err := s.Close(); fault.KindOf(err) != fault.Connect {
		t.Errorf("broken connection: %v", err)
	}
	if _, err := base.List(t.Context(), wire); fault.KindOf(err) != fault.Connect {
		t.Errorf("list: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := base.List(ctx, new(tape)); fault.KindOf(err) != fault.Interrupted {
		t.Errorf("list: %v", err)
	}
	s = base.NewSigner(ctx, new(tape))
	must(t, s.Request(signRequest(1, "f")))
	if err := s.Close(); fault.KindOf(err) != fault.Interrupted {
		t.Errorf("sign: %v", err)
	}
}

// TestSignerFull: who asks for too much at once is refused, not waited for.
func TestSignerFull(t *testing.T) {
	s := &Signer{tasks: make(chan signTask, maxSigning)}
	for i := range maxSigning {
		must(t, s.Request(signRequest(uint32(i), "f")))
	}
	if err := s.Request(signRequest(math.MaxUint32, "f")); fault.KindOf(err) != fault.Protocol {
		t.Error(err)
	}
}

func baseFilesOf(dir string, names ...string) []byte {
	b := appendBytes(nil, dir)
	for _, name := range names {
		b = append(append(b, uint8(len(name))), name...)
		b = binary.BigEndian.AppendUint64(b, 7)
		sum := sumContent([]byte(name))
		b = append(b, sum[:]...)
	}
	return b
}

func TestKnownRefuses(t *testing.T) {
	good := baseFilesOf("d", "f")
	negative, empty := bytes.Clone(good), bytes.Clone(good)
	negative[5] = 0x80
	empty[12] = 0
	for _, b := range [][]byte{
		nil, {0}, good[:len(good)-1], append(bytes.Clone(good), 0), negative, empty,
		baseFilesOf("..", "f"), baseFilesOf("/", "f"), baseFilesOf("d", ".."), baseFilesOf("d", "a/b"), baseFilesOf("d", "a\x00"), baseFilesOf("d", ""),
	} {
		if err := NewKnown().Add(b); fault.KindOf(err) != fault.Protocol {
			t.Errorf("%q: %v", b, err)
		}
	}
	k := NewKnown()
	must(t, errors.Join(k.Add(good), k.Add(good), k.Add(baseFilesOf("e")), k.Add(baseFilesOf("", "f", "g"))))
	if _, ok := k.At("g"); k.Len() != 3 || !ok {
		t.Errorf("%d files known", k.Len())
	}
}

// TestKnownIsBounded: a peer cannot make it grow for ever.
func TestKnownIsBounded(t *testing.T) {
	k := NewKnown()
	deep := strings.Repeat(strings.Repeat("d", 250)+"/", 200)
	for i := range 3000 {
		must(t, k.Add(baseFilesOf(fmt.Sprint(deep, i), "f")))
	}
	if n := k.Len(); n*len(deep) > maxKnownNames || n < 1000 {
		t.Errorf("%d files known", n)
	}
}

func FuzzKnown(f *testing.F) {
	f.Add(baseFilesOf("d/e", "f", "g", "f"))
	f.Add(baseFilesOf(""))
	f.Fuzz(func(t *testing.T, b []byte) {
		k := NewKnown()
		if err := k.Add(b); err != nil && fault.KindOf(err) != fault.Protocol {
			t.Error(err)
		}
		for i := range k.Len() {
			file := k.files.at(uint32(i))
			path := joined(k.dirs[file.dir], k.name(file))
			if size, ok := k.At(path); !ok || size != file.size {
				t.Errorf("%q is lost", path)
			}
			if at, ok := k.Find(file.size, file.sum); !ok && file.sum != [16]byte{} {
				t.Errorf("content of %q is found at %q", path, at)
			}
		}
	})
}

// BenchmarkKnown reports the memory of a million files.
func BenchmarkKnown(b *testing.B) {
	for b.Loop() {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		k := NewKnown()
		names := make([]string, 100)
		for dir := range 10000 {
			for i := range names {
				names[i] = fmt.Sprintf("some-file-name-%d-%d", dir, i)
			}
			if err := k.Add(baseFilesOf(fmt.Sprintf("usr/share/a/directory/%d", dir), names...)); err != nil {
				b.Fatal(err)
			}
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(k.Len()), "bytes/file")
		runtime.KeepAlive(k)
	}
}
