package watch

import (
	"os"
	"path/filepath"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// An operation on a tree that has the directory d with the files d/f (100,000
// bytes) and d/g, the directory e, and d/f once more as e/link. own runs first
// and is not watched.
type operation struct {
	name    string
	own, do func(t *testing.T) // in the tree as working directory
	entries []string           // that must be reported by name
	self    []string           // directories that must be reported
	files   []string           // whose inode must be reported
}

var operations = []operation{
	{name: "write", do: func(t *testing.T) { ok(t, os.WriteFile("d/new", []byte("x"), 0o600)) },
		entries: []string{"d/new"}, files: []string{"d/new"}},
	{name: "write in place", do: func(t *testing.T) { with(t, "d/f", os.O_RDWR, writeAt) },
		entries: []string{"d/f"}, files: []string{"e/link"}},
	{name: "open truncating", do: func(t *testing.T) { with(t, "d/f", os.O_WRONLY|os.O_TRUNC, nothing) },
		entries: []string{"d/f"}, files: []string{"d/f"}},
	{name: "truncate", do: func(t *testing.T) { ok(t, os.Truncate("d/f", 7)) },
		entries: []string{"d/f"}, files: []string{"d/f"}},
	{name: "fallocate", do: func(t *testing.T) { allocate(t, 0, 200000) },
		entries: []string{"d/f"}, files: []string{"d/f"}},
	{name: "punch hole", do: func(t *testing.T) { allocate(t, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 8192) },
		entries: []string{"d/f"}, files: []string{"d/f"}},
	{name: "zero range", do: func(t *testing.T) { allocate(t, unix.FALLOC_FL_ZERO_RANGE, 8192) },
		entries: []string{"d/f"}, files: []string{"d/f"}},
	{name: "chmod", do: func(t *testing.T) { ok(t, os.Chmod("d/g", 0o711)) },
		entries: []string{"d/g"}, files: []string{"d/g"}},
	{name: "chmod of directory", do: func(t *testing.T) { ok(t, os.Chmod("d", 0o711)) }, self: []string{"d"}},
	{name: "chown", do: func(t *testing.T) { ok(t, os.Lchown("d/g", 5, 6)) },
		entries: []string{"d/g"}, files: []string{"d/g"}},
	{name: "utimes", do: func(t *testing.T) { ok(t, os.Chtimes("d/g", time.Unix(5, 0), time.Unix(6, 0))) },
		entries: []string{"d/g"}, files: []string{"d/g"}},
	{name: "mtime alone", do: func(t *testing.T) { times(t, "d/g", unix.UTIME_OMIT, 77) },
		entries: []string{"d/g"}, files: []string{"d/g"}},
	{name: "mtime alone of directory", do: func(t *testing.T) { times(t, "d", unix.UTIME_OMIT, 77) }, self: []string{"d"}},
	{name: "mtime of symbolic link", own: func(t *testing.T) { ok(t, os.Symlink("nowhere", "d/s")) },
		do: func(t *testing.T) { times(t, "d/s", 5, 6) }, entries: []string{"d/s"}, files: []string{"d/s"}},
	{name: "setxattr", do: func(t *testing.T) { ok(t, unix.Lsetxattr("d/g", "user.a", []byte("b"), 0)) },
		entries: []string{"d/g"}, files: []string{"d/g"}},
	{name: "removexattr", own: func(t *testing.T) { ok(t, unix.Lsetxattr("d/g", "user.a", []byte("b"), 0)) },
		do: func(t *testing.T) { ok(t, unix.Lremovexattr("d/g", "user.a")) }, entries: []string{"d/g"}},
	{name: "setxattr of directory", do: func(t *testing.T) { ok(t, unix.Lsetxattr("d", "user.a", []byte("b"), 0)) },
		self: []string{"d"}},
	{name: "mknod", do: func(t *testing.T) { ok(t, unix.Mknod("d/p", unix.S_IFIFO|0o600, 0)) }, entries: []string{"d/p"}},
	{name: "mkdir", do: func(t *testing.T) { ok(t, os.Mkdir("d/sub", 0o700)) }, entries: []string{"d/sub"}},
	{name: "rmdir", own: func(t *testing.T) { ok(t, os.Mkdir("d/sub", 0o700)) },
		do: func(t *testing.T) { ok(t, os.Remove("d/sub")) }, entries: []string{"d/sub"}},
	{name: "symlink", do: func(t *testing.T) { ok(t, os.Symlink("x", "d/s")) }, entries: []string{"d/s"}},
	{name: "link", do: func(t *testing.T) { ok(t, os.Link("d/g", "e/g")) },
		entries: []string{"e/g"}, files: []string{"d/g"}},
	{name: "unlink one of two", do: func(t *testing.T) { ok(t, os.Remove("e/link")) },
		entries: []string{"e/link"}, files: []string{"d/f"}},
	{name: "rename", do: func(t *testing.T) { ok(t, os.Rename("d/g", "e/h")) }, entries: []string{"d/g", "e/h"}, files: []string{"d/g"}},
	{name: "rename one of two", do: func(t *testing.T) { ok(t, os.Rename("e/link", "h")) },
		entries: []string{"e/link", "h"}, files: []string{"d/f"}},
	{name: "rename of directory", do: func(t *testing.T) { ok(t, os.Rename("e", "d/e")) }, entries: []string{"e", "d/e"}, self: []string{"e"}},
	{name: "rename over", do: func(t *testing.T) { ok(t, os.Rename("d/g", "d/f")) },
		entries: []string{"d/g", "d/f"}, files: []string{"e/link"}},
	{name: "rename exchange", do: func(t *testing.T) {
		ok(t, unix.Renameat2(unix.AT_FDCWD, "d/g", unix.AT_FDCWD, "e/link", unix.RENAME_EXCHANGE))
	}, entries: []string{"d/g", "e/link"}},
	{name: "tmpfile", do: tmpfile, entries: []string{"d/t"}, files: []string{"d/t"}},
	{name: "copy_file_range", do: func(t *testing.T) { copyInto(t, copyRange) },
		entries: []string{"d/g"}, files: []string{"d/g"}},
	{name: "sendfile", do: func(t *testing.T) { copyInto(t, sendfile) },
		entries: []string{"d/g"}, files: []string{"d/g"}},
	{name: "splice", do: func(t *testing.T) { copyInto(t, splice) }, entries: []string{"d/g"}, files: []string{"d/g"}},
	{name: "io_uring", do: func(t *testing.T) { with(t, "d/f", os.O_RDWR, uringWrite) },
		entries: []string{"d/f"}, files: []string{"d/f"}},
	{name: "mapping, unmapped", do: func(t *testing.T) { with(t, "d/f", os.O_RDWR, mapped) },
		entries: []string{"d/f"}, files: []string{"d/f"}},
	{name: "io_submit, closed", do: func(t *testing.T) { with(t, "d/f", os.O_RDWR, submit) },
		entries: []string{"d/f"}, files: []string{"d/f"}},
}

// TestOperations has every operation reported as it should be. Descriptors that
// were open before stay open until after Take, or close-write would hide that
// the operation itself raises nothing.
func TestOperations(t *testing.T) {
	for _, o := range operations {
		t.Run(o.name, func(t *testing.T) {
			tr := newTree(t)
			if o.own != nil {
				o.own(t)
			}
			tr.take(t)
			before := tr.inodes(o.files, o.self)
			o.do(t)
			tr.expect(t, tr.take(t), o, before)
		})
	}
}

func tmpfile(t *testing.T) {
	fd, err := unix.Open("d", unix.O_TMPFILE|unix.O_RDWR, 0o600)
	ok(t, err)
	defer unix.Close(fd)
	ok(t, unix.Linkat(unix.AT_FDCWD, filepath.Join("/proc/self/fd", itoa(fd)), unix.AT_FDCWD, "d/t", unix.AT_SYMLINK_FOLLOW))
	_, err = unix.Write(fd, []byte("x"))
	ok(t, err)
}

func allocate(t *testing.T, mode uint32, n int64) {
	with(t, "d/f", os.O_RDWR, func(t *testing.T, f *os.File) { ok(t, unix.Fallocate(int(f.Fd()), mode, 0, n)) })
}

func times(t *testing.T, path string, atime, mtime int64) {
	ts := []unix.Timespec{{Sec: 1, Nsec: atime}, {Sec: 1, Nsec: mtime}}
	ok(t, unix.UtimesNanoAt(unix.AT_FDCWD, path, ts, unix.AT_SYMLINK_NOFOLLOW))
}

func nothing(*testing.T, *os.File) {}

func writeAt(t *testing.T, f *os.File) {
	_, err := f.WriteAt([]byte("y"), 5)
	ok(t, err)
}

func mapped(t *testing.T, f *os.File) {
	m, err := unix.Mmap(int(f.Fd()), 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	ok(t, err)
	m[0] = 'm'
	ok(t, unix.Munmap(m))
}

// copyInto has copy bring bytes from d/f to d/g.
func copyInto(t *testing.T, copy func(t *testing.T, from, to int)) {
	from, err := os.Open("d/f")
	ok(t, err)
	defer from.Close()
	with(t, "d/g", os.O_RDWR, func(t *testing.T, to *os.File) { copy(t, int(from.Fd()), int(to.Fd())) })
}

func copyRange(t *testing.T, from, to int) {
	_, err := unix.CopyFileRange(from, nil, to, nil, 5000, 0)
	ok(t, err)
}

func sendfile(t *testing.T, from, to int) {
	_, err := unix.Sendfile(to, from, nil, 5000)
	ok(t, err)
}

func splice(t *testing.T, from, to int) {
	var p [2]int
	ok(t, unix.Pipe2(p[:], unix.O_CLOEXEC))
	defer unix.Close(p[0])
	defer unix.Close(p[1])
	_, err := unix.Splice(from, nil, p[1], nil, 5000, 0)
	ok(t, err)
	_, err = unix.Splice(p[0], nil, to, nil, 5000, 0)
	ok(t, err)
}

// iocb is struct iocb of linux/aio_abi.h for little-endian machines.
type iocb struct {
	_, _   uint64 // data, key and flags of the write
	opcode uint16
	_      int16
	fd     uint32
	buf    unsafe.Pointer
	bytes  uint64
	_, _   uint64 // offset, reserved
	_, _   uint32
}

// submit writes with io_submit(2).
func submit(t *testing.T, f *os.File) {
	var ctx uintptr
	_, _, e := unix.Syscall(unix.SYS_IO_SETUP, 1, uintptr(unsafe.Pointer(&ctx)), 0)
	okErrno(t, e)
	defer unix.Syscall(unix.SYS_IO_DESTROY, ctx, 0, 0)
	data := []byte("aio")
	cb := &iocb{opcode: 1, fd: uint32(f.Fd()), buf: unsafe.Pointer(&data[0]), bytes: 3}
	_, _, e = unix.Syscall(unix.SYS_IO_SUBMIT, ctx, 1, uintptr(unsafe.Pointer(&cb)))
	okErrno(t, e)
	var event [4]uint64
	n, _, e := unix.Syscall6(unix.SYS_IO_GETEVENTS, ctx, 1, 1, uintptr(unsafe.Pointer(&event)), 0, 0)
	okErrno(t, e)
	if n != 1 || event[2] != 3 {
		t.Fatalf("io_getevents: %d events, result %d", n, int64(event[2]))
	}
}
