package transport

import (
	"errors"
	"regexp"
	"strings"
	"unicode"

	"github.com/vzkit/vzkit/internal/fault"
)

// maxText caps the message and the hint of an error frame, in bytes.
const maxText = 4 << 10

// PeerError is an error that the peer reported, with its kind and hint, and
// text that is safe to show: errors.As tells it from an error of this side.
type PeerError struct {
	Err *fault.Error
}

func (e *PeerError) Error() string { return e.Err.Error() }

// Unwrap returns the error with the peer's kind.
func (e *PeerError) Unwrap() error { return e.Err }

// errorFrame is the payload of TypeError.
type errorFrame struct {
	Kind    fault.Kind `json:"kind"`
	Message string     `json:"message"`
	Hint    string     `json:"hint,omitempty"`
}

// SendError tells the peer why this side gives up. Nothing may be written
// after it. A nil err sends nothing.
func (c *Conn) SendError(err error) error {
	if err == nil {
		return nil
	}
	return c.WriteJSON(TypeError, errorFrame{
		Kind:    fault.KindOf(err),
		Message: truncate(err.Error(), maxText),
		Hint:    truncate(fault.HintOf(err), maxText),
	})
}

func parsePeerError(b []byte) error {
	var f errorFrame
	if err := DecodeJSON(TypeError, b, &f); err != nil {
		return err
	}
	message := clean(f.Message, maxText)
	if message == "" {
		message = "no reason given"
	}
	return &PeerError{&fault.Error{Kind: f.Kind, Err: errors.New(message), Hint: clean(f.Hint, maxText)}}
}

// escapes are the sequences of ECMA-48 that a terminal would obey: control
// sequences, strings (titles, clipboard), and two-character ones.
var escapes = regexp.MustCompile("(?:\x1b\\[|\u009b)[0-?]*[ -/]*[@-~]" +
	"|(?:\x1b[]PX^_]|[\u009d\u0090\u0098\u009e\u009f])[^\a\x1b\u009c]*(?:\a|\x1b\\\\|\u009c)?" +
	"|\x1b[ -/]*[0-~]")

// clean makes a peer's text safe to show on one line: no terminal escapes, no
// control or invisible characters, at most limit bytes.
func clean(s string, limit int) string {
	s = escapes.ReplaceAllString(truncate(s, limit), "")
	s = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case unicode.IsPrint(r):
			return r
		}
		return -1
	}, s)
	return strings.TrimSpace(truncate(s, limit))
}

// truncate cuts s to limit bytes and leaves valid UTF-8.
func truncate(s string, limit int) string {
	if len(s) > limit {
		s = s[:limit]
	}
	return strings.ToValidUTF8(s, "")
}

// Clean makes a line of another host's text safe to show: see clean.
func Clean(s string) string { return clean(s, maxText) }
