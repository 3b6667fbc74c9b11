// Package copytree copies a directory tree on one host as a migration would
// take it to another: package transport/files on both ends of a pipe. What that
// carries is carried here, and its errors are the errors here.
package copytree

import (
	"context"
	"io"

	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/transport"
	"github.com/vzkit/vzkit/transport/files"
)

// Copier copies and measures; it is a lifecycle.Carrier.
type Copier struct{}

// Measure returns how many bytes and inodes the tree occupies.
func (Copier) Measure(ctx context.Context, root string) (bytes, inodes uint64, err error) {
	return files.Measure(ctx, root)
}

// Copy makes the empty directory to like from, where nothing writes meanwhile.
// After an error, part of the tree may be in to.
func (Copier) Copy(ctx context.Context, from, to string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r, w := io.Pipe()
	sent := make(chan error, 1)
	go func() {
		err := send(ctx, transport.NewConn(nil, w), from)
		w.CloseWithError(err)
		sent <- err
	}()
	err := receive(ctx, transport.NewConn(r, nil), to)
	r.CloseWithError(io.ErrClosedPipe)
	cause := <-sent
	if err == nil || (cause != nil && fault.KindOf(err) == fault.Connect) {
		return cause // the receiver only knows that there came no more
	}
	return err
}

func send(ctx context.Context, conn *transport.Conn, from string) error {
	source, err := files.NewSource(from, files.SourceOptions{Once: true})
	if err != nil {
		return err
	}
	defer source.Close()
	if _, err := source.Pass(ctx, conn, files.PassOptions{Pass: 1, Frozen: true}); err != nil {
		return err
	}
	return conn.Flush()
}

func receive(ctx context.Context, conn *transport.Conn, to string) error {
	target, err := files.NewTarget(to)
	if err != nil {
		return err
	}
	defer target.Close()
	typ, first, err := conn.ReadFrame()
	if err != nil {
		return fault.Wrap(fault.Connect, err)
	}
	if typ != transport.TypeFilesBegin {
		return fault.New(fault.Protocol, "frame %v in place of a pass", typ)
	}
	if _, err := target.Receive(ctx, conn, first); err != nil {
		return err
	}
	return target.Finish()
}
