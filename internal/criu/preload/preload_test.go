package preload

import (
	"bytes"
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// run runs a command with the library, and FD from where the server is.
func run(t *testing.T, s *Server, argv ...string) {
	t.Helper()
	library := filepath.Join(t.TempDir(), "library.so")
	if err := WriteFile(library); err != nil {
		t.Fatal(err)
	}
	script := `exec "$@" 100>&3 3>&-`
	cmd := exec.Command("bash", append([]string{"-c", script, "bash", "env", "LD_PRELOAD=" + library}, argv...)...)
	if s != nil {
		cmd.ExtraFiles = []*os.File{s.Theirs}
	} else {
		cmd.ExtraFiles = []*os.File{os.Stdin}
	}
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Fatalf("%v: %s", err, out)
	}
}

// sparse makes a file with a hole, which cp(1) asks SEEK_DATA for.
func sparse(t *testing.T) (path string, content []byte) {
	t.Helper()
	content = make([]byte, 3<<20)
	copy(content[1<<20:], bytes.Repeat([]byte("data"), 4096))
	path = filepath.Join(t.TempDir(), "file")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(content[1<<20:1<<20+4*4096], 1<<20); err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(int64(len(content))); err != nil {
		t.Fatal(err)
	}
	return path, content
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestAnswers(t *testing.T) {
	path, content := sparse(t)
	var seen atomic.Int64
	for _, test := range []struct {
		name   string
		answer Answer
		want   []byte
	}{
		{"make the call", Answer{}, content},
		{"nothing there", Errno(unix.ENXIO), make([]byte, len(content))},
	} {
		t.Run(test.name, func(t *testing.T) {
			seen.Store(0)
			s, err := Serve(func(c Call) Answer {
				if c.Number == unix.SYS_LSEEK && c.Args[2] == unix.SEEK_DATA && c.PID > 1 {
					seen.Add(1)
				}
				return test.answer
			})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			to := filepath.Join(t.TempDir(), "copy")
			run(t, s, "cp", "--sparse=auto", path, to)
			if !bytes.Equal(read(t, to), test.want) || seen.Load() == 0 {
				t.Errorf("copy is not what was answered, %d calls seen", seen.Load())
			}
		})
	}
}

// Without a server, whether it has gone or never was, calls are made.
func TestNobodyAnswers(t *testing.T) {
	path, content := sparse(t)
	s, err := Serve(func(Call) Answer { return Errno(unix.ENXIO) })
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := unix.Dup(int(s.Theirs.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	gone := &Server{Theirs: os.NewFile(uintptr(theirs), "calls")}
	defer gone.Theirs.Close()
	for _, s := range []*Server{gone, nil} {
		to := filepath.Join(t.TempDir(), "copy")
		run(t, s, "cp", "--sparse=auto", path, to)
		if !bytes.Equal(read(t, to), content) {
			t.Errorf("copy differs, server %v", s)
		}
	}
}

// Results and errors reach the caller as the C library's functions give them.
func TestResults(t *testing.T) {
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skip("no python3")
	}
	s, err := Serve(func(c Call) Answer {
		switch {
		case c.Number == unix.SYS_IOCTL && c.Args[0] == 77 && c.Args[1] == 0xc0606610 && c.Args[2] > 4096:
			return Return(1<<31 - 1)
		case c.Number == unix.SYS_LSEEK && c.Args[0] == 78:
			return Return(1 << 40)
		case c.Number == unix.SYS_SOCKET:
			return Errno(unix.EXDEV)
		}
		return Answer{}
	})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	run(t, s, "python3", "-c", `
import ctypes, errno, os, socket, sys
c = ctypes.CDLL(None, use_errno=True)
buf = ctypes.create_string_buffer(96)
c.ioctl.restype, c.lseek.restype = ctypes.c_int, ctypes.c_int64
assert c.ioctl(77, ctypes.c_ulong(0xc0606610), buf) == 2**31 - 1
assert c.ioctl(79, ctypes.c_ulong(0xc0606610), buf) == -1 and ctypes.get_errno() == errno.EBADF
assert c.ioctl(79, ctypes.c_ulong(0x5401), buf) == -1 and ctypes.get_errno() == errno.EBADF
assert c.lseek(78, ctypes.c_int64(0), 3) == 2**40
assert c.lseek(79, ctypes.c_int64(0), 0) == -1 and ctypes.get_errno() == errno.EBADF
f = os.open(sys.executable, os.O_RDONLY)
assert c.lseek64(f, ctypes.c_int64(17), 0) == 17
assert c.socket(16, 3, 12) == -1 and ctypes.get_errno() == errno.EXDEV
assert c.socket(16, 3, 0) > 2 and c.socket(2, 1, 0) > 2
`)
}

func TestLibraryIsWellFormed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "library.so")
	if err := WriteFile(path); err != nil {
		t.Fatal(err)
	}
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Flags&elf.PF_X != 0 && p.Flags&elf.PF_W != 0 {
			t.Errorf("segment at %#x is writable and executable", p.Vaddr)
		}
	}
	addresses := slices.Clone(hookAddresses[:])
	slices.Sort(addresses)
	for i := range addresses[1:] {
		if size := addresses[i+1] - addresses[i]; size > hookSize {
			t.Errorf("code of a hook takes %d bytes", size)
		}
	}
}
