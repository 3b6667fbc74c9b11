package transport

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/vzkit/vzkit/internal/fault"
)

type shaken struct {
	peer    Hello
	version int
	err     error
}

// shake lets two hellos meet over a connection that buffers nothing.
func shake(t *testing.T, s, r Hello) (atS, atR shaken) {
	t.Helper()
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	done := make(chan shaken)
	go func() {
		var res shaken
		res.peer, res.version, res.err = NewConn(b, b).Handshake(r)
		done <- res
	}()
	atS.peer, atS.version, atS.err = NewConn(a, a).Handshake(s)
	return atS, <-done
}

func TestHandshake(t *testing.T) {
	s, r := shake(t,
		Hello{Role: RoleSender, Program: "vzmigrate 1.0", HostID: "alpha"},
		Hello{Role: RoleReceiver, Program: "vzmigrate 2.0\x1b[2J", HostID: "beta\n"})
	if s.err != nil || r.err != nil || s.version != Version || r.version != Version {
		t.Fatalf("sender %d, %v; receiver %d, %v", s.version, s.err, r.version, r.err)
	}
	if want := (Hello{magic, Version, Version, "vzmigrate 2.0", RoleReceiver, "beta"}); s.peer != want {
		t.Errorf("sender sees %+v", s.peer)
	}
	if want := (Hello{magic, Version, Version, "vzmigrate 1.0", RoleSender, "alpha"}); r.peer != want {
		t.Errorf("receiver sees %+v", r.peer)
	}
}

func TestVersions(t *testing.T) {
	for _, c := range []struct {
		sMin, sMax, rMin, rMax int
		want                   int
		upgrade                string
	}{
		{1, 1, 1, 1, 1, ""},
		{1, 3, 1, 2, 2, ""},
		{1, 2, 2, 5, 2, ""},
		{2, 4, 1, 9, 4, ""},
		{2, 4, 4, 4, 4, ""},
		{1, 1, 2, 3, 0, "Upgrade vzkit on the source host."},
		{3, 4, 1, 2, 0, "Upgrade vzkit on the destination host."},
	} {
		s, r := shake(t,
			Hello{Role: RoleSender, MinVersion: c.sMin, MaxVersion: c.sMax},
			Hello{Role: RoleReceiver, MinVersion: c.rMin, MaxVersion: c.rMax})
		for side, got := range map[string]shaken{"sender": s, "receiver": r} {
			if got.version != c.want || fault.HintOf(got.err) != c.upgrade {
				t.Errorf("%+v: %s has %d, %v, %q", c, side, got.version, got.err, fault.HintOf(got.err))
			}
			if c.want == 0 && (fault.KindOf(got.err) != fault.Protocol || !strings.HasPrefix(got.err.Error(), "no common protocol version: own ")) {
				t.Errorf("%+v: %s: %v", c, side, got.err)
			}
		}
	}
}

func TestSameRole(t *testing.T) {
	s, r := shake(t, Hello{Role: RoleSender}, Hello{Role: RoleSender})
	for _, got := range []shaken{s, r} {
		if got.err == nil || got.err.Error() != `peer has role "sender", own is "sender"` {
			t.Error(got.err)
		}
	}
}

// greet shakes hands with a peer that sends exactly these bytes.
func greet(b []byte) error {
	_, _, err := NewConn(bytes.NewReader(b), io.Discard).Handshake(Hello{Role: RoleSender})
	return err
}

func hello(t *testing.T, text string) []byte {
	return encode(t, CodecNone, []frame{{TypeHello, []byte(text)}})
}

func TestForeignGreetings(t *testing.T) {
	good := hello(t, `{"magic":"vzkit","min_version":4,"max_version":4,"role":"receiver"}`)
	const prefix = "peer does not speak vzkit's protocol: got "
	for _, c := range []struct{ name, sent, want string }{
		{"shell profile", "Welcome to beta!\nLast login: Monday\n" + string(good), `"Welcome to beta! Last login: Monday"`},
		{"short word", "hi\n", `"hi"`},
		{"short word, then hello", "hi\n" + string(good), `"hi"`},
		{"colours", "\x1b[1;32mbeta\x1b[0m ready", `"beta ready"`},
		{"long", strings.Repeat("-", 500), fmt.Sprintf("%q", strings.Repeat("-", 60))},
		{"binary", "\x16\x03\x03\x00", `"\x16\x03\x03\x00"`},
		{"hello type, text", "\x01 looks like a type", `"looks like a type"`},
		{"other magic", string(hello(t, `{"magic":"p.haul"}`)), `"p.haul"`},
		{"no magic", string(hello(t, `{}`)), `""`},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := greet([]byte(c.sent))
			if err == nil || err.Error() != prefix+c.want {
				t.Errorf("%v, want %s", err, c.want)
			}
			if fault.KindOf(err) != fault.Protocol || fault.HintOf(err) == "" {
				t.Errorf("kind %d, hint %q", fault.KindOf(err), fault.HintOf(err))
			}
		})
	}
}

func TestGreetingIsQuotedWithoutItsEnd(t *testing.T) {
	r, w := net.Pipe()
	defer r.Close()
	defer w.Close()
	go w.Write([]byte("hi\n")) // and then nothing, the connection stays open
	_, _, err := NewConn(r, io.Discard).Handshake(Hello{Role: RoleSender})
	if err == nil || !strings.HasSuffix(err.Error(), `got "hi"`) {
		t.Error(err)
	}
}

func TestBadHellos(t *testing.T) {
	good := hello(t, `{"magic":"vzkit","min_version":4,"max_version":4,"role":"receiver"}`)
	if err := greet(good); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		sent []byte
		want fault.Kind
	}{
		{"nothing", nil, fault.Connect},
		{"one byte", good[:1], fault.Protocol},
		{"half a header", good[:7], fault.Protocol},
		{"half a hello", good[:30], fault.Protocol},
		{"no JSON", hello(t, "hello"), fault.Protocol},
		{"no role", hello(t, `{"magic":"vzkit","min_version":4,"max_version":4}`), fault.Protocol},
		{"version 0", hello(t, `{"magic":"vzkit","max_version":1,"role":"receiver"}`), fault.Protocol},
		{"versions reversed", hello(t, `{"magic":"vzkit","min_version":5,"max_version":4,"role":"receiver"}`), fault.Protocol},
	} {
		if err := greet(c.sent); err == nil || fault.KindOf(err) != c.want {
			t.Errorf("%s: %v, kind %d", c.name, err, fault.KindOf(err))
		}
	}
	if err := greet(nil); !errors.Is(err, io.EOF) || fault.HintOf(err) == "" {
		t.Errorf("nothing: %v", err)
	}
}

func TestErrorInsteadOfHello(t *testing.T) {
	var b bytes.Buffer
	if err := NewConn(nil, &b).SendError(fault.New(fault.Permission, "need root")); err != nil {
		t.Fatal(err)
	}
	var peer *PeerError
	if err := greet(b.Bytes()); !errors.As(err, &peer) || fault.KindOf(err) != fault.Permission {
		t.Error(err)
	}
}

func TestHandshakeOnBrokenConnection(t *testing.T) {
	_, _, err := NewConn(bytes.NewReader(hello(t, `{"magic":"vzkit"}`)), brokenWriter{}).Handshake(Hello{Role: RoleSender})
	if fault.KindOf(err) != fault.Connect {
		t.Error(err)
	}
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }
