package faultfs

import (
	"context"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// node asks the hook before it lets the loopback do something.
type node struct {
	*fs.LoopbackNode
	hook Hook
}

var (
	_ fs.NodeWrapChilder    = (*node)(nil)
	_ fs.NodeOpener         = (*node)(nil)
	_ fs.NodeOpendirHandler = (*node)(nil)
	_ fs.NodeGetxattrer     = (*node)(nil)
)

// WrapChild makes the nodes beneath ask too.
func (n *node) WrapChild(_ context.Context, child fs.InodeEmbedder) fs.InodeEmbedder {
	return &node{child.(*fs.LoopbackNode), n.hook}
}

func (n *node) ask(c Call) syscall.Errno {
	c.Path = n.Path(nil)
	return n.hook(c)
}

// Open gives out a file that asks before each read.
func (n *node) Open(ctx context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	if errno := n.ask(Call{Op: Open}); errno != OK {
		return nil, 0, errno
	}
	handle, fuseFlags, errno := n.LoopbackNode.Open(ctx, flags)
	if errno != OK {
		return nil, 0, errno
	}
	return &file{handle.(*fs.LoopbackFile), n}, fuseFlags, OK
}

// OpendirHandle opens in any case; it is reading that fails.
func (n *node) OpendirHandle(ctx context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	if errno := n.ask(Call{Op: List}); errno != OK {
		return unreadable(errno), 0, OK
	}
	return n.LoopbackNode.OpendirHandle(ctx, flags)
}

func (n *node) Getxattr(ctx context.Context, attr string, dest []byte) (uint32, syscall.Errno) {
	if errno := n.ask(Call{Op: Getxattr, Attr: attr}); errno != OK {
		return 0, errno
	}
	return n.LoopbackNode.Getxattr(ctx, attr, dest)
}

// file is an open regular file.
type file struct {
	*fs.LoopbackFile
	node *node
}

func (f *file) Read(ctx context.Context, buf []byte, offset int64) (fuse.ReadResult, syscall.Errno) {
	if errno := f.node.ask(Call{Op: Read, Offset: offset, Length: int64(len(buf))}); errno != OK {
		return nil, errno
	}
	return f.LoopbackFile.Read(ctx, buf, offset)
}

// PassthroughFd would let the kernel read past the hook.
func (f *file) PassthroughFd() (int, bool) { return -1, false }

// unreadable is an open directory that cannot be listed.
type unreadable syscall.Errno

func (u unreadable) Readdirent(context.Context) (*fuse.DirEntry, syscall.Errno) {
	return nil, syscall.Errno(u)
}
