package migrate

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestAddMapped(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct {
		name        string
		prot, flags int
		want        bool
	}{
		{"read and written", unix.PROT_READ | unix.PROT_WRITE, unix.MAP_SHARED, true},
		{"only written", unix.PROT_WRITE, unix.MAP_SHARED, true},
		{"private", unix.PROT_READ | unix.PROT_WRITE, unix.MAP_PRIVATE, false},
		{"with\nline end", unix.PROT_READ | unix.PROT_WRITE, unix.MAP_SHARED, true},
	} {
		path := filepath.Join(dir, c.name)
		f, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		mem, err := unix.Mmap(int(f.Fd()), 0, 4096, c.prot, c.flags)
		if err != nil {
			t.Fatal(err)
		}
		found := fileSet{}
		err = errors.Join(addMapped(os.Getpid(), found), unix.Munmap(mem))
		var st unix.Stat_t
		err = errors.Join(err, unix.Fstat(int(f.Fd()), &st), f.Close())
		if err != nil || found.has(st.Dev, st.Ino) != c.want {
			t.Errorf("%q: found %v, %v, want %v", c.name, !c.want, err, c.want)
		}
		if found.has(st.Dev, st.Ino+1<<40) {
			t.Error("a file was found that does not exist")
		}
		after := fileSet{}
		if err := addMapped(os.Getpid(), after); err != nil || after.has(st.Dev, st.Ino) {
			t.Errorf("%q: found after it was unmapped, %v", c.name, err)
		}
	}
	if err := addMapped(1<<22, fileSet{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a process that does not exist: %v", err)
	}
}
