package backup

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/checkpoint-restore/go-criu/v7/crit/images/pagemap"
	"google.golang.org/protobuf/proto"
)

const page = 4096

func TestWithoutLazy(t *testing.T) {
	const both = flagPresent | flagLazy
	pieces := []piece{
		{address: 0x10000, pages: 4, flags: both, stored: true},
		{address: 0x20000, pages: 1, flags: both, stored: true},
		{address: 0x30000, pages: 2, flags: flagPresent, stored: true},
	}
	got := withoutLazy(pieces, map[uint64]bool{0x12000: true, 0x20000: true, 0x31000: true, 0x50000: true})
	want := []piece{
		{address: 0x10000, pages: 2, flags: both, stored: true},
		{address: 0x12000, pages: 1, flags: flagPresent, stored: true},
		{address: 0x13000, pages: 1, flags: both, stored: true},
		{address: 0x20000, pages: 1, flags: flagPresent, stored: true},
		{address: 0x30000, pages: 2, flags: flagPresent, stored: true},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v", got)
	}
}

// Every page that one of them has comes once, from the tracker if it has it,
// in the order of addresses, and CRIU's from the place where it was.
func TestMerge(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		tracked, own := randomPieces(random, true), randomPieces(random, false)
		want := map[uint64]piece{}
		for _, pieces := range [][]piece{own, tracked} {
			for _, p := range pieces {
				for a := p.address; a < p.end(); a += page {
					want[a] = p.from(a).upTo(a + page)
				}
			}
		}
		end, got := uint64(0), map[uint64]piece{}
		for _, p := range merge(tracked, own) {
			if p.address < end || p.pages == 0 {
				t.Fatalf("%+v follows %#x", p, end)
			}
			for end = p.address; end < p.end(); end += page {
				got[end] = p.from(end).upTo(end + page)
			}
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("merged %+v\nand %+v\nto %+v", tracked, own, got)
		}
	}
}

func randomPieces(random *rand.Rand, stored bool) (pieces []piece) {
	address, at := uint64(0), int64(0)
	for range random.IntN(8) {
		address += uint64(random.IntN(4)) * page
		p := piece{address: address, pages: 1 + random.Uint64N(5), flags: flagPresent, stored: stored}
		if !stored {
			p.at = at
		}
		address, at = p.end(), at+int64(p.pages)*page
		pieces = append(pieces, p)
	}
	return pieces
}

// CRIU up to 4.1 and go-criu read another field than later ones write.
func TestPagesOf(t *testing.T) {
	e := newEntry(piece{address: page, pages: 7})
	if e.GetNrPages() != 7 || pagesOf(e) != 7 {
		t.Errorf("%d and %d pages, want 7", e.GetNrPages(), pagesOf(e))
	}
	e.NrPages = proto.Uint32(0)
	text, err := proto.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	var late pagemap.PagemapEntry
	if err := proto.Unmarshal(text, &late); err != nil || pagesOf(&late) != 7 {
		t.Errorf("%d pages, %v", pagesOf(&late), err)
	}
	if n := pagesOf(&pagemap.PagemapEntry{NrPages: proto.Uint32(3)}); n != 3 {
		t.Errorf("%d pages, want 3", n)
	}
}

// Pages that are zero take no room, and are zero when they are read.
func TestPagesWriter(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pages")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	data := make([]byte, 5*page)
	data[page], data[2*page+1], data[4*page-1] = 1, 2, 3
	w := &pagesWriter{out: f}
	for range 2 {
		if err := w.write(data); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Truncate(w.at); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(path)
	if err != nil || string(got) != string(data)+string(data) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

// What is a link, a file or not empty is nothing that a checkpoint may take the
// place of.
func TestTarget(t *testing.T) {
	dir := t.TempDir()
	for _, err := range []error{
		os.Mkdir(dir+"/empty", 0o700), os.MkdirAll(dir+"/full/x", 0o700),
		os.WriteFile(dir+"/file", nil, 0o600), os.Symlink("empty", dir+"/link"),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, ok := range map[string]bool{
		"/new": true, "/empty": true, "/empty/": true, "/full": false, "/file": false, "/link": false, "/no/new": false, "/file/new": false,
	} {
		got, err := target(dir + name)
		if (err == nil) != ok || ok && got != filepath.Clean(dir+name) {
			t.Errorf("target(%q) is %q, %v", name, got, err)
		}
	}
	if _, err := target(""); err == nil {
		t.Error("no name is taken")
	}
}
