// Package kv is a small key-value server in memory that answers the Redis
// commands the benchmarks need: PING, SET, GET, MGET, DEL, DBSIZE, FLUSHALL,
// INFO, CONFIG GET, COMMAND and QUIT, pipelined and inline, and a clear error
// to the rest. It stands in for Redis in a container that has none.
//
// It is no database: nothing is stored on disk, nothing expires. Its replies
// are held against transcripts of a real Redis in testdata.
package kv

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"

	"github.com/vzkit/vzkit/bench/resp"
)

// DefaultMaxBytes is the memory that keys and values may take together.
const DefaultMaxBytes = 1 << 30

// maxClients bounds the memory that clients can claim without storing anything.
const maxClients = 256

// Server is the server and its data.
type Server struct {
	store   store
	clients atomic.Int64
}

// New returns an empty server whose keys and values take at most maxBytes; a
// SET beyond that is refused with an OOM error.
func New(maxBytes int64) *Server {
	return &Server{store: store{max: maxBytes, data: map[string][]byte{}}}
}

// Listen listens on addr, HOST:PORT, with plain TCP. Go would use Multipath TCP
// otherwise, whose sockets CRIU cannot dump.
func Listen(ctx context.Context, addr string) (net.Listener, error) {
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	return lc.Listen(ctx, "tcp", addr)
}

// Serve answers connections to ln until ctx ends, then closes ln and all of
// them and returns nil. Any other end of ln is an error.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(ctx, func() { ln.Close() })()
	for {
		conn, err := ln.Accept()
		if err != nil && ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("accept connection: %w", err)
		}
		wg.Go(func() { s.client(ctx, conn) })
	}
}

// client serves one connection until its end or ctx's.
func (s *Server) client(ctx context.Context, conn net.Conn) {
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	defer s.clients.Add(-1)
	if s.clients.Add(1) > maxClients {
		io.WriteString(conn, "-ERR max number of clients reached\r\n")
		return
	}
	w := bufio.NewWriter(conn)
	s.converse(resp.NewReader(flushFirst{conn, w}), w)
	w.Flush()
}

// flushFirst sends what was written before it waits for more, so that a
// pipeline gets its replies in few packets and none is held back.
type flushFirst struct {
	io.Reader
	w *bufio.Writer
}

func (f flushFirst) Read(p []byte) (int, error) {
	if err := f.w.Flush(); err != nil {
		return 0, err
	}
	return f.Reader.Read(p)
}

// converse answers commands until QUIT, the end of the connection, or bytes
// that are not commands.
func (s *Server) converse(r *resp.Reader, w *bufio.Writer) {
	var b []byte
	for {
		args, err := r.ReadCommand()
		var malformed resp.ProtocolError
		if errors.As(err, &malformed) {
			w.Write(appendError(b[:0], "Protocol error: %s", string(malformed)))
		}
		if err != nil {
			return
		}
		var quit bool
		b, quit = s.execute(b[:0], args)
		if _, err := w.Write(b); err != nil || quit {
			return
		}
	}
}
