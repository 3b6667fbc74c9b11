package restore_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/checkpoint-restore/go-criu/v7/crit/images/pagemap"
	"github.com/google/go-cmp/cmp"
	"github.com/moby/sys/mountinfo"
	"google.golang.org/protobuf/proto"

	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/restore"
)

// The magic numbers of CRIU's images (criu/include/magic.h).
const (
	magicCommon  = 0x54564319
	magicPagemap = 0x56084025
)

// Flags of runs (criu/include/pagemap.h).
const (
	parent  = 1 << 0
	present = 1 << 2
)

func newStore(t *testing.T, limit uint64) *restore.Store {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "a", "store")
	s, err := restore.NewStore(dir, limit)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		if _, err := os.Lstat(dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("directory after close: %v", err)
		}
	})
	return s
}

// page is one page filled with b.
func page(b byte) []byte { return bytes.Repeat([]byte{b}, restore.PageSize) }

type run struct {
	Address      uint64
	Count, Flags uint32
}

// readPagemap decodes a pagemap image: two magic numbers, then messages with
// their sizes before them (criu.org/Images).
func readPagemap(t *testing.T, path string) (pagesID uint32, runs []run) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	r := bytes.NewReader(text)
	var magic [2]uint32
	if err := binary.Read(r, binary.LittleEndian, &magic); err != nil || magic != [2]uint32{magicCommon, magicPagemap} {
		t.Fatalf("%s begins with %#x, %v", path, magic, err)
	}
	var head pagemap.PagemapHead
	for next := proto.Message(&head); ; {
		var size uint32
		err := binary.Read(r, binary.LittleEndian, &size)
		if err == io.EOF {
			return head.GetPagesId(), runs
		}
		body := make([]byte, size)
		if _, rerr := io.ReadFull(r, body); err != nil || rerr != nil {
			t.Fatalf("read %s: %v, %v", path, err, rerr)
		}
		if err := proto.Unmarshal(body, next); err != nil {
			t.Fatal(err)
		}
		if e, ok := next.(*pagemap.PagemapEntry); ok {
			runs = append(runs, run{e.GetVaddr(), e.GetNrPages(), e.GetFlags()})
		}
		next = &pagemap.PagemapEntry{}
	}
}

// wantSpace checks an address space's pagemap, and the pages it points to.
func wantSpace(t *testing.T, s *restore.Store, name string, runs []run, pages ...byte) {
	t.Helper()
	id, got := readPagemap(t, filepath.Join(s.Dir(), name))
	if diff := cmp.Diff(runs, got); diff != "" {
		t.Errorf("%s: %s", name, diff)
	}
	text, err := os.ReadFile(filepath.Join(s.Dir(), fmt.Sprintf("pages-%d.img", id)))
	if err != nil {
		t.Fatal(err)
	}
	var want []byte
	for _, b := range pages {
		want = append(want, page(b)...)
	}
	if !bytes.Equal(text, want) {
		t.Errorf("%s: %d bytes of pages differ from %d", name, len(text), len(want))
	}
}

func TestPages(t *testing.T) {
	s := newStore(t, 16<<20)
	const base = 0x7fff00000000
	for _, r := range []struct {
		shared bool
		id     uint64
		run
		data []byte
	}{
		{false, 4711, run{base, 1, present}, page(1)},
		{false, 4711, run{base + 0x1000, 2, present}, append(page(2), page(3)...)}, // joins
		{true, 4711, run{0, 1, present}, page(9)},                                  // another space
		{false, 4711, run{base + 0x3000, 5, parent}, nil},                          // other flags
		{false, 4711, run{base + 0x8000, 1, parent}, nil},                          // joins
		{false, 4711, run{base + 0x10000, 1, present}, page(4)},                    // a gap
		{false, 12, run{base, 1, present | 2}, page(5)},
		{true, 4711, run{0x1000, 1, present}, page(8)},         // joins across others
		{false, 4711, run{base + 0x1000, 1, present}, page(6)}, // goes back
	} {
		if err := s.Pages(r.shared, r.id, r.Address, r.Count, r.Flags, r.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Finish(); err != nil {
		t.Fatal(err)
	}
	wantSpace(t, s, "pagemap-4711.img", []run{
		{base, 3, present}, {base + 0x3000, 6, parent}, {base + 0x10000, 1, present}, {base + 0x1000, 1, present},
	}, 1, 2, 3, 4, 6)
	wantSpace(t, s, "pagemap-shmem-4711.img", []run{{0, 2, present}}, 9, 8)
	wantSpace(t, s, "pagemap-12.img", []run{{base, 1, present | 2}}, 5)
}

// A run can be longer than what one entry may say.
func TestPagesBeyondOneEntry(t *testing.T) {
	s := newStore(t, 1<<20)
	const most = 1 << 30
	var want []run
	for i := range uint64(5) {
		if err := s.Pages(false, 1, i*most*restore.PageSize, most, parent, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Finish(); err != nil {
		t.Fatal(err)
	}
	for _, n := range []uint64{0, 2, 4} {
		want = append(want, run{n * most * restore.PageSize, uint32(min(2, 5-n) * most), parent})
	}
	wantSpace(t, s, "pagemap-1.img", want)
}

func TestImages(t *testing.T) {
	s := newStore(t, 1<<20)
	for _, c := range []struct {
		name, data string
		last       bool
	}{
		{"core-1.img", "one ", false}, {"core-2.img", "two", true}, {"core-1.img", "and one", true}, {"empty.img", "", true},
	} {
		if err := s.Image(c.name, []byte(c.data), c.last); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Finish(); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"core-1.img": "one and one", "core-2.img": "two", "empty.img": ""} {
		if got, err := os.ReadFile(filepath.Join(s.Dir(), name)); err != nil || string(got) != want {
			t.Errorf("%s is %q, %v", name, got, err)
		}
	}
}

func TestImageRefusals(t *testing.T) {
	s := newStore(t, 1<<20)
	for _, name := range []string{
		"", ".", "..", "core", "core.img.tmp", "restore.log", "/core.img", "a/core.img", "../core.img", "./core.img",
	} {
		if err := s.Image(name, []byte("x"), true); fault.KindOf(err) != fault.Protocol {
			t.Errorf("image %q: %v", name, err)
		}
	}
	if err := s.Image("core-1.img", nil, true); err != nil {
		t.Fatal(err)
	}
	if err := s.Image("core-1.img", nil, true); fault.KindOf(err) != fault.Protocol || !strings.Contains(err.Error(), "twice") {
		t.Errorf("image that has ended: %v", err)
	}
	if err := s.Image("core-3.img", nil, false); err != nil {
		t.Fatal(err)
	}
	if err := s.Finish(); fault.KindOf(err) != fault.Protocol || !strings.Contains(err.Error(), `"core-3.img" has no end`) {
		t.Errorf("finish with an open image: %v", err)
	}
	if left, err := os.ReadDir(s.Dir()); err != nil || len(left) != 2 {
		t.Errorf("in the store: %v, %v", left, err)
	}
}

func TestStoreIsFull(t *testing.T) {
	for name, fill := range map[string]func(*restore.Store) error{
		"pages": func(s *restore.Store) error { return s.Pages(false, 1, 0, 1, present, page(1)) },
		"image": func(s *restore.Store) error { return s.Image("core-1.img", page(1), false) },
	} {
		s := newStore(t, 1<<20)
		var err error
		for n := 0; err == nil && n < 1000; n++ {
			err = fill(s)
		}
		if fault.KindOf(err) != fault.NoSpace || !strings.Contains(err.Error(), "more than 1 MiB") || fault.HintOf(err) == "" {
			t.Errorf("%s: error %v of kind %d", name, err, fault.KindOf(err))
		}
	}
}

func TestNewStoreRefusals(t *testing.T) {
	dir := t.TempDir()
	if _, err := restore.NewStore(dir, 1<<20); !errors.Is(err, os.ErrExist) {
		t.Errorf("directory that is there: %v", err)
	}
	if mounted, err := mountinfo.Mounted(dir); err != nil || mounted {
		t.Errorf("mounted: %v, %v", mounted, err)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := restore.NewStore(filepath.Join(file, "store"), 1<<20); err == nil {
		t.Error("a store below a file")
	}
}

func TestCloseInTheMiddle(t *testing.T) {
	s := newStore(t, 1<<20)
	if err := errors.Join(s.Image("core-1.img", page(1), false), s.Pages(false, 1, 0, 1, present, page(1))); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Close(), s.Close()); err != nil {
		t.Error(err)
	}
}

func TestKeepLog(t *testing.T) {
	dir := t.TempDir()
	to := filepath.Join(dir, "kept")
	if err := restore.KeepLog(dir, to); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no log: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "restore.log"), []byte("why\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := restore.KeepLog(dir, to); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(to); string(text) != "why\n" || err != nil {
		t.Errorf("kept %q, %v", text, err)
	}
}
