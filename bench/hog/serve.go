package hog

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"strconv"

	"golang.org/x/sync/errgroup"

	"github.com/vzkit/vzkit/internal/fault"
)

// maxCommand is the length of a line on the control port at most.
const maxCommand = 64

// Report is the answer on the control port.
type Report struct {
	Realtime  Gap      `json:"realtime"` // longest since the last reset
	Monotonic Gap      `json:"monotonic"`
	Samples   []Sample `json:"samples"`

	// Of the command verify only.
	Pages    uint64 `json:"pages"`    // of all processes
	Bad      uint64 `json:"bad"`      // not what they were when they were written
	Versions uint64 `json:"versions"` // of all pages together
	Done     uint64 `json:"done"`     // writes
	Silent   uint64 `json:"silent"`   // children that do not answer
}

// serve answers on both ports of host until ctx ends.
func (h *hog) serve(ctx context.Context, host string) error {
	g, ctx := errgroup.WithContext(ctx)
	for port, answer := range map[int]func(net.Conn){EchoPort: echo, ControlPort: h.control} {
		addr := net.JoinHostPort(host, strconv.Itoa(port))
		ln, err := listen(ctx, addr)
		if err != nil {
			return fault.New(fault.Network, "listen on %q: %w", addr, err).
				WithHint("Choose a local address; ports %d and %d must be free.", EchoPort, ControlPort)
		}
		defer context.AfterFunc(ctx, func() { ln.Close() })()
		g.Go(func() error { return accept(ctx, ln, answer) })
	}
	return g.Wait()
}

// listen listens with plain TCP: CRIU cannot dump sockets of Multipath TCP.
func listen(ctx context.Context, addr string) (net.Listener, error) {
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	return lc.Listen(ctx, "tcp", addr)
}

func accept(ctx context.Context, ln net.Listener, answer func(net.Conn)) error {
	for {
		conn, err := ln.Accept()
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return err
		}
		go func() {
			defer conn.Close()
			answer(conn)
		}()
	}
}

// echo sends everything back, through a buffer that it keeps.
func echo(conn net.Conn) {
	buf := make([]byte, 64<<10)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return
		}
		if _, err := conn.Write(buf[:n]); err != nil {
			return
		}
	}
}

func (h *hog) control(conn net.Conn) {
	lines := bufio.NewScanner(conn)
	lines.Buffer(make([]byte, maxCommand), maxCommand)
	for lines.Scan() {
		var r Report
		switch lines.Text() {
		case "reset":
			h.ticker.reset()
		case "report":
			h.ticker.fill(&r)
		case "verify":
			h.verify(&r)
		default:
			return
		}
		if err := json.NewEncoder(conn).Encode(r); err != nil {
			return
		}
	}
}

// errCut is an answer that does not end.
var errCut = errors.New("answer too long or cut off")

// maxAnswer is the length of an answer at most: some 60 bytes a sample.
const maxAnswer = 1 << 20

func readReport(conn io.Reader) (r Report, err error) {
	line, err := bufio.NewReader(io.LimitReader(conn, maxAnswer)).ReadBytes('\n')
	if errors.Is(err, io.EOF) {
		err = errCut
	}
	if err != nil {
		return r, err
	}
	return r, json.Unmarshal(line, &r)
}
