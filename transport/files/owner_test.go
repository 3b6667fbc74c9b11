package files

import (
	"testing"

	"golang.org/x/sys/unix"
)

// TestThreadCreatesForOthers: a file has its owner, and the thread its
// capabilities, without any chown(2); other threads are what they were.
func TestThreadCreatesForOthers(t *testing.T) {
	dir, err := unix.Open(t.TempDir(), dirFlags, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(dir)
	create := func(o *owner, e *entry) (st unix.Stat_t) {
		o.set(e)
		fd, err := createFile(dir, e)
		if err != nil {
			t.Error(err)
			return st
		}
		defer unix.Close(fd)
		if err := unix.Fstat(fd, &st); err != nil {
			t.Error(err)
		}
		return st
	}
	done := make(chan bool)
	go func() {
		defer close(done)
		var o owner
		o.adoptThread()
		for _, want := range []entry{{path: "a", uid: 7, gid: 8}, {path: "b", uid: 100000, gid: 8}, {path: "c", uid: 0, gid: 0}} {
			st := create(&o, &want)
			if st.Uid != want.uid || st.Gid != want.gid {
				t.Errorf("file of %d:%d is of %d:%d", want.uid, want.gid, st.Uid, st.Gid)
			}
			if err := unix.Fchownat(dir, want.path, 1, 1, 0); err != nil {
				t.Errorf("afterwards: %v", err)
			}
		}
	}()
	<-done
	if st := create(new(owner), &entry{path: "d"}); st.Uid != 0 {
		t.Errorf("file of another thread is of %d", st.Uid)
	}
}
