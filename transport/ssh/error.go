package ssh

import (
	"context"
	"errors"
	"fmt"

	"github.com/vzkit/vzkit/internal/fault"
)

// ErrDeadPeer is what reads, writes and waits end with after the server has not
// been heard of for KeepAliveMax × KeepAlive.
var ErrDeadPeer = errors.New("peer is dead")

// errClosed is what a session ends with after its own Close.
var errClosed = errors.New("session is closed")

// ExitError says how a remote command ended if not with status 0.
type ExitError struct {
	Code   int    // exit status; 128 + n where a signal ended the command
	Signal string // name without "SIG", or "" (RFC 4254, section 6.10)
}

func (e *ExitError) Error() string {
	if e.Signal != "" {
		return "signal " + e.Signal
	}
	return fmt.Sprintf("exit status %d", e.Code)
}

// endKind is the kind of an operation that ctx has ended.
func endKind(ctx context.Context) fault.Kind {
	if errors.Is(ctx.Err(), context.Canceled) {
		return fault.Interrupted
	}
	return fault.Connect
}
