package transport

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/vzkit/vzkit/internal/fault"
)

// reported sends err through a connection.
func reported(t *testing.T, err error) error {
	t.Helper()
	var b bytes.Buffer
	c := NewConn(&b, &b)
	if err := c.SendError(err); err != nil {
		t.Fatal(err)
	}
	_, _, got := c.ReadFrame()
	return got
}

func TestErrorCrossesTheWire(t *testing.T) {
	err := reported(t, fmt.Errorf("restore 101: %w", fault.New(fault.NoSpace, "disk full").WithHint("Free 3 GiB.")))
	var peer *PeerError
	if !errors.As(err, &peer) {
		t.Fatalf("%T: %v", err, err)
	}
	if err.Error() != "restore 101: disk full" || fault.KindOf(err) != fault.NoSpace || fault.HintOf(err) != "Free 3 GiB." {
		t.Errorf("%q, kind %d, hint %q", err, fault.KindOf(err), fault.HintOf(err))
	}
	own := fault.New(fault.Protocol, "x")
	if errors.As(error(own), &peer) {
		t.Error("an error of this side looks like the peer's")
	}
}

func TestLongErrorsAreCut(t *testing.T) {
	long := strings.Repeat("ü\n", maxText)
	err := reported(t, fault.New(fault.Copy, "%s", long).WithHint("%s", long))
	if n := len(err.Error()); n > maxText || n < maxText/2 {
		t.Errorf("message of %d bytes", n)
	}
	if n := len(fault.HintOf(err)); n > maxText || n < maxText/2 {
		t.Errorf("hint of %d bytes", n)
	}
}

func TestNoErrorSendsNothing(t *testing.T) {
	var b bytes.Buffer
	if err := NewConn(nil, &b).SendError(nil); err != nil || b.Len() != 0 {
		t.Error(err, b.Len())
	}
}

func TestHostileErrorText(t *testing.T) {
	for _, c := range []struct{ sent, want string }{
		{"plain", "plain"},
		{"größer 日本", "größer 日本"},
		{"two\nlines\tand\rmore", "two lines and more"},
		{"\x1b[31mred\x1b[0m", "red"},
		{"\x1b]0;title\aafter", "after"},
		{"\x1b]52;c;cm0gLXJm\x1b\\after", "after"},
		{"\x1b]8;;http://evil", "no reason given"},
		{"\x1bPqsixel\x1b\\after", "after"},
		{"\u009b2Jcleared", "cleared"},
		{"\u009d0;title\u009cafter", "after"},
		{"\x1bcreset \x1b(0line", "reset line"},
		{"\x1b\x1b[0m[31mnested", "[31mnested"},
		{"lone \x1b", "lone"},
		{"nul\x00bell\a\bback\x7f", "nulbellback"},
		{"bidi \u202egnp.exe\u202c", "bidi gnp.exe"},
		{"zero\u200bwidth\ufeff", "zerowidth"},
		{"line\u2028separator", "line separator"},
		{"", "no reason given"},
	} {
		b, err := json.Marshal(errorFrame{Message: c.sent, Hint: c.sent})
		if err != nil {
			t.Fatal(err)
		}
		if got := parsePeerError(b); got.Error() != c.want {
			t.Errorf("%q became %q, want %q", c.sent, got, c.want)
		} else if hint := fault.HintOf(got); hint != c.want && hint != "" {
			t.Errorf("hint %q became %q", c.sent, hint)
		}
	}
}

func TestMalformedErrorFrames(t *testing.T) {
	for _, text := range []string{"", "boom", `{"kind":-1}`, `{"kind":65536}`, `{"message":1}`} {
		_, _, err := connOf(encode(t, CodecNone, []frame{{TypeError, []byte(text)}})).ReadFrame()
		var peer *PeerError
		if errors.As(err, &peer) || fault.KindOf(err) != fault.Protocol {
			t.Errorf("%q: %v", text, err)
		}
	}
	_, _, err := connOf(encode(t, CodecNone, []frame{{TypeError, []byte(`{"kind":65535,"message":"new"}`)}})).ReadFrame()
	if fault.KindOf(err) != fault.Kind(65535) || err.Error() != "new" {
		t.Errorf("kind of a newer peer: %v", err)
	}
}
