// Package faultfs mounts a directory once more, by FUSE, and lets a test decide
// which system calls fail: disks with bad sectors, files that vanish at the
// worst moment. It is for tests, and needs root and /dev/fuse.
//
// A Hook sees a Call before it is done. What it returns, unless it is OK, is the
// error of the call; it may also change the directory underneath and let the
// call find that. Everything else passes through to the directory underneath
// (fuse(4), go-fuse's loopback).
//
// The kernel reads ahead: a hook sees reads before the program asks for them,
// and of a read that fails the kernel asks again page by page.
package faultfs

import (
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// Op is a kind of call.
type Op string

// What a hook sees. List is reading a directory, not opening it.
const (
	Open     Op = "open" // of a regular file
	Read     Op = "read"
	List     Op = "list"
	Getxattr Op = "getxattr"
)

// Call is a call that is about to be done.
type Call struct {
	Op             Op
	Path           string // from the root, which is ""
	Offset, Length int64  // of Read
	Attr           string // of Getxattr
}

// OK lets a call pass.
const OK = syscall.Errno(0)

// Hook decides about a call. It is called by several goroutines.
type Hook func(Call) syscall.Errno

// FS is a mounted file system.
type FS struct {
	dir  string
	gone chan struct{} // closed when the kernel has let go
}

// Missing says why this machine cannot mount, or nothing.
func Missing() error {
	_, err := os.Stat("/dev/fuse")
	return err
}

// Mount shows the directory beneath at dir, which exists.
func Mount(beneath, dir string, hook Hook) (*FS, error) {
	loopback, err := fs.NewLoopbackRoot(beneath)
	if err != nil {
		return nil, &os.PathError{Op: "open directory", Path: beneath, Err: err}
	}
	now := time.Duration(0) // no cache of names and attributes
	root := &node{LoopbackNode: loopback.(*fs.LoopbackNode), hook: hook}
	server, err := fs.Mount(dir, root, &fs.Options{
		MountOptions: fuse.MountOptions{DirectMountStrict: true, FsName: "faultfs", Name: "faultfs"},
		EntryTimeout: &now,
		AttrTimeout:  &now,
	})
	if err != nil {
		return nil, fmt.Errorf("mount faultfs at %q: %w", dir, err)
	}
	f := &FS{dir: dir, gone: make(chan struct{})}
	go func() {
		server.Wait()
		close(f.gone)
	}()
	return f, nil
}

// Unmount takes the file system out of sight at once, also when it is in use,
// and reports it if it stays in use.
func (f *FS) Unmount() error {
	if err := unix.Unmount(f.dir, unix.MNT_DETACH); err != nil {
		return &os.PathError{Op: "unmount", Path: f.dir, Err: err}
	}
	select {
	case <-f.gone:
		return nil
	case <-time.After(10 * time.Second):
		return fmt.Errorf("unmount %q: still in use", f.dir)
	}
}
