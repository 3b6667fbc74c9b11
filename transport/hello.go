package transport

import (
	"bytes"
	"fmt"
	"io"

	"github.com/vzkit/vzkit/internal/fault"
)

// The roles of a Hello.
const (
	RoleSender   = "sender"
	RoleReceiver = "receiver"
)

const (
	magic       = "vzkit"
	maxName     = 255 // bytes of Program and HostID
	maxGreeting = 60  // bytes of foreign text worth showing
)

// Hello is the first frame of either side.
type Hello struct {
	Magic      string `json:"magic"` // set by Handshake
	MinVersion int    `json:"min_version"`
	MaxVersion int    `json:"max_version"`
	Program    string `json:"program"` // name and release, for people
	Role       string `json:"role"`    // RoleSender or RoleReceiver
	HostID     string `json:"host_id"` // equal on both ends: one machine
}

// Handshake sends own and reads the peer's hello at the same time. It returns
// that and the protocol version in force. Zero versions in own mean Version.
// Errors: those of ReadJSON, and fault.Protocol with a hint if the peer speaks
// something else, no common version, or in the same role.
func (c *Conn) Handshake(own Hello) (peer Hello, version int, err error) {
	own.Magic = magic
	if own.MaxVersion == 0 {
		own.MinVersion, own.MaxVersion = Version, Version
	}
	sent := make(chan error, 1)
	go func() { sent <- c.WriteJSON(TypeHello, own) }()
	if peer, err = c.readHello(); err != nil {
		return Hello{}, 0, err
	}
	if err = <-sent; err != nil {
		return Hello{}, 0, err
	}
	if version, err = negotiate(own, peer); err != nil {
		return Hello{}, 0, err
	}
	return peer, version, nil
}

func (c *Conn) readHello() (Hello, error) {
	if err := c.checkGreeting(); err != nil {
		return Hello{}, err
	}
	var h Hello
	if err := c.ReadJSON(TypeHello, &h); err != nil {
		return Hello{}, err
	}
	if h.Magic != magic {
		return Hello{}, foreign([]byte(h.Magic))
	}
	h.Program, h.HostID = clean(h.Program, maxName), clean(h.HostID, maxName)
	return h, nil
}

// checkGreeting looks at the first bytes without taking them: a login shell
// that prints something is the usual reason for a stream that is not ours. It
// waits for one byte first, because foreign text may be shorter than a header.
func (c *Conn) checkGreeting() error {
	if err := c.peek(1); err != nil {
		return err
	}
	if t := Type(c.arrived()[0]); t != TypeHello && t != TypeError {
		return foreign(c.arrived())
	}
	if err := c.peek(headerSize); err != nil {
		return err
	}
	if _, err := parseHeader((*[headerSize]byte)(c.arrived())); err != nil {
		return foreign(c.arrived())
	}
	return nil
}

// arrived is what the read buffer holds.
func (c *Conn) arrived() []byte {
	b, _ := c.r.Peek(c.r.Buffered())
	return b
}

// peek waits for n bytes in the read buffer.
func (c *Conn) peek(n int) error {
	b, err := c.r.Peek(n)
	switch {
	case err == nil:
		return nil
	case err == io.EOF && len(b) == 0:
		return fault.New(fault.Connect, "peer closed before hello: %w", io.EOF).
			WithHint("Check that vzkit is installed on the other host and starts there.")
	case err == io.EOF:
		err = io.ErrUnexpectedEOF
	}
	return readError("frame header", err)
}

// foreign is the error about a peer whose first bytes are not a hello.
func foreign(b []byte) error {
	if i := bytes.IndexByte(b, byte(TypeHello)); i > 0 {
		b = b[:i]
	}
	text := clean(string(b), 4*maxGreeting)
	if text == "" {
		text = string(b)
	}
	return fault.New(fault.Protocol, "peer does not speak vzkit's protocol: got %q", text[:min(len(text), maxGreeting)]).
		WithHint("If this is a greeting, keep the shell profile of the login account on the other host from printing in sessions without a terminal.")
}

// negotiate checks the roles and picks the version.
func negotiate(own, peer Hello) (int, error) {
	if peer.Role == own.Role || (peer.Role != RoleSender && peer.Role != RoleReceiver) {
		return 0, fault.New(fault.Protocol, "peer has role %q, own is %q", clean(peer.Role, maxName), own.Role).
			WithHint("Start the other side in the opposite role: vzmigrate sends, vzmigrate --receive receives.")
	}
	if peer.MinVersion < 1 || peer.MinVersion > peer.MaxVersion {
		return 0, malformed(TypeHello, "versions %s", versions(peer))
	}
	version := min(own.MaxVersion, peer.MaxVersion)
	if version < max(own.MinVersion, peer.MinVersion) {
		older := own
		if peer.MaxVersion < own.MinVersion {
			older = peer
		}
		return 0, fault.New(fault.Protocol, "no common protocol version: own %s, peer %s", versions(own), versions(peer)).
			WithHint("Upgrade vzkit on the %s host.", hostOf(older.Role))
	}
	return version, nil
}

func versions(h Hello) string { return fmt.Sprintf("%d to %d", h.MinVersion, h.MaxVersion) }

// hostOf is the host that a role runs on, in the user's words.
func hostOf(role string) string {
	if role == RoleSender {
		return "source"
	}
	return "destination"
}
