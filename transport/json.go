package transport

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/vzkit/vzkit/internal/fault"
)

// WriteJSON writes a frame of type t with v as one JSON object. A nil v is an
// empty object.
func (c *Conn) WriteJSON(t Type, v any) error {
	if v == nil {
		v = struct{}{}
	}
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode %s: %w", t, err)
	}
	if err := checkJSON(t, b); err != nil {
		return err
	}
	return c.WriteFrame(t, b)
}

// ReadJSON reads the next frame, which must be of type t, into v; nil drops the
// content. Fields v lacks are ignored. Errors are those of ReadFrame, except
// that the end of the connection has kind fault.Connect (and still is io.EOF),
// and fault.Protocol for another type or broken JSON.
func (c *Conn) ReadJSON(t Type, v any) error {
	got, b, err := c.ReadFrame()
	switch {
	case err == io.EOF:
		return fault.New(fault.Connect, "peer closed before %s: %w", t, io.EOF)
	case err != nil:
		return err
	case got != t:
		return fault.New(fault.Protocol, "unexpected frame %s, want %s", got, t)
	case v == nil:
		return nil
	}
	return DecodeJSON(t, b, v)
}

// DecodeJSON reads the payload of a frame of type t into v.
func DecodeJSON(t Type, b []byte, v any) error {
	if err := checkJSON(t, b); err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return malformed(t, "decode json: %w", err)
	}
	return nil
}

// checkJSON holds JSON to its limit even in a stream frame.
func checkJSON(t Type, b []byte) error {
	if len(b) > maxControl {
		return malformed(t, "%d bytes of json exceed %d", len(b), maxControl)
	}
	return nil
}
