package ssh

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"

	xssh "golang.org/x/crypto/ssh"

	"github.com/vzkit/vzkit/internal/fault"
)

// Dial connects to t and logs in. Connecting, the key exchange and the login
// together take at most the target's timeout. Errors are fault.Connect with a
// hint, or fault.Interrupted if ctx was cancelled.
func Dial(ctx context.Context, t *Target) (*Client, error) {
	within, cancel := context.WithTimeout(ctx, t.timeout)
	defer cancel()
	known, err := t.knownKeys()
	if err != nil {
		return nil, err
	}
	l, err := t.connect(within)
	if err != nil {
		return nil, t.explainConnect(ctx, within, err)
	}
	h := &handshake{t: t, known: known, link: l, ids: t.loadIdentities(within)}
	c, err := h.do(within)
	if err != nil {
		h.ids.close()
		l.release()
		return nil, h.explain(ctx, within, err)
	}
	return c, nil
}

// handshake is one key exchange and login, and how far it came.
type handshake struct {
	t     *Target
	known *knownKeys
	link  *link
	ids   *identities

	keyErr   error  // the verdict on the host key, if bad
	accepted []byte // the host key, if good; the login comes next
}

// config leaves the ciphers to the library, whose first choice AES-128-GCM moves
// most bytes a second.
func (h *handshake) config() *xssh.ClientConfig {
	return &xssh.ClientConfig{
		User:              h.t.User,
		HostKeyAlgorithms: h.known.algorithms(),
		HostKeyCallback:   h.checkKey,
		Auth:              []xssh.AuthMethod{xssh.PublicKeys(h.ids.signers...)},
	}
}

// checkKey is the callback for the host key. It comes again with every new key
// exchange of a long connection, and then knows the key.
func (h *handshake) checkKey(_ string, _ net.Addr, key xssh.PublicKey) error {
	if h.accepted != nil && bytes.Equal(h.accepted, key.Marshal()) {
		return nil
	}
	if h.keyErr = h.known.check(key); h.keyErr == nil {
		h.accepted = key.Marshal()
	}
	return h.keyErr
}

func (h *handshake) do(ctx context.Context) (*Client, error) {
	stop := context.AfterFunc(ctx, func() {
		h.link.abort()
		h.ids.close()
	})
	conn, chans, reqs, err := xssh.NewClientConn(h.link, h.t.addr(), h.config())
	if !stop() && err == nil {
		conn.Close()
		err = ctx.Err()
	}
	if err != nil {
		return nil, err
	}
	h.link.join(conn)
	return newClient(h, xssh.NewClient(conn, chans, reqs)), nil
}

// explain says what went wrong between the connection and the login.
func (h *handshake) explain(parent, within context.Context, err error) error {
	if h.keyErr != nil {
		return h.keyErr
	}
	if ended := h.t.explainEnd(parent, within); ended != nil {
		return ended
	}
	if h.link.proxy != nil && h.accepted == nil {
		return fault.New(fault.Connect, "proxy command %q: %s", h.t.proxyCommand, h.link.proxy.report()).
			WithHint("Run the ProxyCommand by hand and see whether it reaches an SSH server.")
	}
	if h.accepted != nil && !isTransport(err) {
		return h.explainLogin()
	}
	return fault.New(fault.Connect, "handshake with %s: %w", h.t.addr(), err).
		WithHint("Check that the port belongs to an OpenSSH server and see its log.")
}

// isTransport reports whether the connection itself broke.
func isTransport(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) || strings.HasSuffix(err.Error(), "EOF")
}

func (h *handshake) explainLogin() error {
	detail := "no key to try"
	if len(h.ids.tried) > 0 {
		detail = "tried " + strings.Join(h.ids.tried, ", ")
	}
	if len(h.ids.skipped) > 0 {
		detail += "; skipped " + strings.Join(h.ids.skipped, ", ")
	}
	return fault.New(fault.Connect, "log in to %s: no key accepted: %s", h.t, detail).
		WithHint("Add your public key to ~/.ssh/authorized_keys of %s there (ssh-copy-id), name the key with IdentityFile, "+
			"or load an encrypted one into an agent with ssh-add.", h.t.User)
}

// explainEnd returns the error for a context that has ended, or nil.
func (t *Target) explainEnd(parent, within context.Context) error {
	switch {
	case errors.Is(parent.Err(), context.Canceled):
		return fault.New(fault.Interrupted, "connect to %s: %w", t.addr(), parent.Err())
	case within.Err() != nil:
		return t.explainTimeout(within.Err())
	}
	return nil
}

func (t *Target) explainTimeout(err error) error {
	return fault.New(fault.Connect, "connect to %s: no answer in %s: %w", t.addr(), t.timeout, err).
		WithHint("Check that the host is up, that no firewall drops port %d, or raise ConnectTimeout.", t.Port)
}

// explainConnect says why there is no connection to hold a handshake on.
func (t *Target) explainConnect(parent, within context.Context, err error) error {
	if ended := t.explainEnd(parent, within); ended != nil {
		return ended
	}
	var dns *net.DNSError
	if errors.As(err, &dns) {
		return fault.New(fault.Connect, "resolve host %q: %s", t.Host, dns.Err).
			WithHint("Check the name, or give its address with HostName in ~/.ssh/config.")
	}
	var known *fault.Error
	if errors.As(err, &known) {
		return fmt.Errorf("connect to %s: %w", t.addr(), err)
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Timeout() {
		return t.explainTimeout(err)
	}
	return fault.New(fault.Connect, "connect to %s: %w", t.addr(), plainCause(err)).
		WithHint("Check that sshd runs on %s, listens on port %d, and that a route leads there.", t.Host, t.Port)
}

// plainCause drops the layers that net puts around a system error.
func plainCause(err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}

func errText(err error) string { return plainCause(err).Error() }
