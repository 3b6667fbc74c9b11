package migrate

import (
	"context"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/transport"
)

// A source says something at least every pingTime, if only that it lives. One
// that has been silent for silenceLimit is gone: its host, or the way to it.
const (
	pingTime     = 5 * time.Second
	silenceLimit = 30 * time.Second
)

// ping lets the peer know that this side lives, until done is closed or the
// connection fails.
func ping(conn *transport.Conn, done <-chan struct{}) {
	for tick := time.NewTicker(pingTime); ; {
		select {
		case <-done:
			tick.Stop()
			return
		case <-tick.C:
			if conn.WriteFrame(transport.TypePing) != nil {
				tick.Stop()
				return
			}
		}
	}
}

// Attentive reads from f, a pipe or a socket, and gives up when ctx ends or
// nothing has come for long. A plain read of standard input ends with neither.
func Attentive(ctx context.Context, f *os.File) io.Reader {
	return &attentive{ctx: ctx, f: f, limit: silenceLimit}
}

type attentive struct {
	ctx   context.Context
	f     *os.File
	limit time.Duration
}

// glance is how often a waiting read looks at its context, in milliseconds.
const glance = 200

// Read asks a socket, which sshd gives, for what is there before it waits.
func (a *attentive) Read(p []byte) (int, error) {
	if n, _, err := unix.Recvfrom(int(a.f.Fd()), p, unix.MSG_DONTWAIT); err == nil && n > 0 {
		return n, nil
	}
	for silent := time.Now(); ; {
		poll := []unix.PollFd{{Fd: int32(a.f.Fd()), Events: unix.POLLIN}}
		n, err := unix.Poll(poll, glance)
		switch {
		case n > 0:
			return a.f.Read(p)
		case err != nil && err != unix.EINTR:
			return 0, os.NewSyscallError("poll", err)
		case a.ctx.Err() != nil:
			return 0, fault.New(fault.Interrupted, "interrupted")
		case time.Since(silent) > a.limit:
			return 0, fault.New(fault.Connect, "source has been silent for %v", a.limit)
		}
	}
}
