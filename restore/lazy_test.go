package restore

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/vzkit/vzkit/internal/fault"
)

func store(t *testing.T) *Store {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	s, err := NewStore(filepath.Join(t.TempDir(), "store"), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// Memory comes as runs or as images, not as both.
func TestMemoryComesOneWay(t *testing.T) {
	runs := store(t)
	if err := runs.Pages(false, 1, 0, 1, pagePresent, make([]byte, PageSize)); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"pages-1.img", "pagemap-2.img", "pagemap-shmem-1.img"} {
		if err := runs.Image(name, []byte("x"), true); fault.KindOf(err) != fault.Protocol {
			t.Errorf("image %q after runs: %v", name, err)
		}
	}
	images := store(t)
	if err := images.Image("pages-1.img", []byte("x"), true); err != nil {
		t.Fatal(err)
	}
	if err := images.Pages(false, 1, 0, 1, pagePresent, make([]byte, PageSize)); fault.KindOf(err) != fault.Protocol {
		t.Errorf("runs after images: %v", err)
	}
}

// A lazy dump's pagemaps lose what they only describe, whatever else is in
// them; a pagemap that is cut off anywhere is refused.
func TestLazyEntriesGo(t *testing.T) {
	write := func(entries ...uint32) []byte {
		s := store(t)
		for i, flags := range entries {
			var data []byte
			if flags&pagePresent != 0 {
				data = make([]byte, PageSize)
			}
			if err := s.Pages(false, 1, uint64(2*i)*PageSize, 1, flags, data); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Finish(); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(filepath.Join(s.Dir(), "pagemap-1.img"))
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	all := write(pagePresent, pageLazy, pagePresent|pageLazy, pageLazy)
	kept, err := withoutLazy(all)
	if err != nil || bytes.Equal(kept, all) {
		t.Fatalf("%d bytes of %d, %v", len(kept), len(all), err)
	}
	if again, err := withoutLazy(kept); err != nil || !bytes.Equal(again, kept) {
		t.Errorf("not the same again: %v", err)
	}
	whole := map[int]bool{}
	for n := range all {
		if _, err := withoutLazy(all[:n]); err == nil {
			whole[n] = true // cut between two entries
		}
	}
	if len(whole) != 5 { // behind the magic, the head, and all entries but the last
		t.Errorf("accepted when cut at %v", whole)
	}
}
