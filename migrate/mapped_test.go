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
		if err != nil || found[[2]uint64{st.Dev, st.Ino}] != c.want {
			t.Errorf("%q: found %v, %v, want %v", c.name, !c.want, err, c.want)
		}
		if found[[2]uint64{st.Dev, st.Ino + 1<<40}] {
			t.Error("a file was found that does not exist")
		}
		after := fileSet{}
		if err := addMapped(os.Getpid(), after); err != nil || after[[2]uint64{st.Dev, st.Ino}] {
			t.Errorf("%q: found after it was unmapped, %v", c.name, err)
		}
	}
	if err := addMapped(1<<22, fileSet{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a process that does not exist: %v", err)
	}
}

// TestOpenForWriting: a file counts that some descriptor can write to, once.
func TestOpenForWriting(t *testing.T) {
	dir := t.TempDir()
	open := func(name string, flags int) [2]uint64 {
		f, err := os.OpenFile(filepath.Join(dir, name), flags|os.O_CREATE, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		var st unix.Stat_t
		if err := unix.Fstat(int(f.Fd()), &st); err != nil {
			t.Fatal(err)
		}
		return [2]uint64{st.Dev, st.Ino}
	}
	read, write, both := open("r", os.O_RDONLY), open("w", os.O_WRONLY), open("b", os.O_RDWR)
	found := fileSet{both: true}
	if err := addOpen(os.Getpid(), found); err != nil {
		t.Fatal(err)
	}
	if _, has := found[read]; has {
		t.Error("file that is open for reading was found")
	}
	if mapped, has := found[write]; !has || mapped {
		t.Errorf("file that is open for writing: found %v, mapped %v", has, mapped)
	}
	if !found[both] {
		t.Error("mapped file is only open now")
	}
}
