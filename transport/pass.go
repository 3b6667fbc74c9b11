package transport

import (
	"context"
	"errors"
	"io"

	"github.com/vzkit/vzkit/internal/fault"
)

// FrameReader is the part of a Conn that the receiver of a pass needs. The
// payload is valid until the next ReadFrame.
type FrameReader interface {
	ReadFrame() (Type, []byte, error)
}

// ErrAbort is what the receiver of a pass returns when the sender gave up with
// an abort frame in place of the rest.
var ErrAbort = errors.New("sender aborted the pass")

// ReadWithin reads the next frame of a pass, which has an explicit end: the end
// of the connection is an error of kind fault.Connect. Others: ErrAbort,
// fault.Interrupted if ctx is done, and those of r, with kind fault.Copy if they
// have none.
func ReadWithin(ctx context.Context, r FrameReader) (Type, []byte, error) {
	if err := fault.Ended(ctx); err != nil {
		return 0, nil, err
	}
	t, payload, err := r.ReadFrame()
	if errors.Is(err, io.EOF) {
		err = fault.New(fault.Connect, "peer closed within a pass: %w", err)
	}
	if err == nil && t == TypeAbort {
		err = ErrAbort
	}
	if err == nil || err == ErrAbort {
		return t, payload, err
	}
	return 0, nil, fault.Wrap(fault.Copy, err)
}
