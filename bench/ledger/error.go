package ledger

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"github.com/vzkit/vzkit/internal/fault"
)

// lossError says how the connection ended. The cause can be unwrapped, so
// syscall.ECONNRESET and io.EOF can be told apart.
type lossError struct {
	what  string
	acked uint64
	cause error
}

func (e *lossError) Error() string {
	return fmt.Sprintf("%s after %d acknowledged writes: %v", e.what, e.acked, e.cause)
}

func (e *lossError) Unwrap() error { return e.cause }

// loss explains the end of the connection from what the receiver and the
// sender saw: a reset is seen by whoever looks first, the other sees its trace.
func (s *session) loss(recvErr, sendErr error) error {
	is := func(target error) bool { return errors.Is(recvErr, target) || errors.Is(sendErr, target) }
	cause := recvErr
	if cause == nil || errors.Is(sendErr, syscall.ECONNRESET) {
		cause = sendErr
	}
	what := "connection failed"
	switch {
	case is(syscall.ECONNRESET):
		what = "connection reset"
	case is(io.EOF), is(io.ErrUnexpectedEOF), is(syscall.EPIPE):
		what = "connection closed by the server"
	case errors.Is(recvErr, os.ErrDeadlineExceeded):
		what = fmt.Sprintf("no reply for %v", s.cfg.Patience)
	}
	return fault.Wrap(fault.Connect, &lossError{what, s.tally.acked, cause})
}

// joined is errors.Join on one line.
func joined(a, b error) error {
	if a == nil || b == nil {
		return errors.Join(a, b)
	}
	return fmt.Errorf("%w; %w", a, b)
}

func isLoss(err error) bool {
	var loss *lossError
	return errors.As(err, &loss)
}
