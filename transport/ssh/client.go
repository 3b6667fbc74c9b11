package ssh

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	xssh "golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"github.com/vzkit/vzkit/internal/fault"
)

// aliveRequest is OpenSSH's own name for the question whether the peer is there.
const aliveRequest = "keepalive@openssh.com"

// ticks is how many times a KeepAlive period the link is looked at.
const ticks = 4

// Client is a connection to a server. All methods may be called from several
// goroutines.
type Client struct {
	t    *Target
	link *link
	conn *xssh.Client
	ids  *identities

	forward struct {
		mu      sync.Mutex
		served  bool // we answer the server's agent channels
		granted bool // the server opens them
		agent   forwardedAgent
	}

	dead    atomic.Bool   // set before the link of a dead peer is cut
	gone    chan struct{} // closed when the connection has ended
	lostErr error         // why; read after gone
	asking  atomic.Bool   // an aliveRequest of the watch is under way
	tasks   sync.WaitGroup
}

func newClient(h *handshake, conn *xssh.Client) *Client {
	c := &Client{t: h.t, link: h.link, conn: conn, ids: h.ids, gone: make(chan struct{})}
	c.forward.agent.ids = h.ids
	c.tasks.Go(func() {
		c.lostErr = conn.Wait()
		close(c.gone)
	})
	c.tasks.Go(c.watch)
	return c
}

// Close ends all sessions and the connection, and what it ran over.
func (c *Client) Close() error {
	c.link.abort()
	c.conn.Close()
	c.tasks.Wait()
	c.link.release()
	c.ids.close()
	return nil
}

// watch asks the server for a sign of life every KeepAlive and cuts the link
// after KeepAliveMax periods of silence. It counts its own looks at the link
// and not the clock's time, so that a machine that was itself stopped for a
// while hears the peer out first.
func (c *Client) watch() {
	ticker := time.NewTicker(max(c.t.keepAlive/ticks, time.Millisecond))
	defer ticker.Stop()
	var heard uint64
	silent := 0
	for n := 1; ; n++ {
		select {
		case <-c.gone:
			return
		case <-ticker.C:
		}
		silent++
		if now := c.link.received.Load(); now != heard {
			heard, silent = now, 0
		}
		if silent >= ticks*c.t.keepAliveMax {
			c.dead.Store(true)
			c.link.abort()
			return
		}
		if n%ticks == 0 && c.asking.CompareAndSwap(false, true) {
			c.tasks.Go(func() {
				c.alive()
				c.asking.Store(false)
			})
		}
	}
}

// alive asks the server for a sign of life and waits for it, or for the end of
// the connection.
func (c *Client) alive() bool {
	_, _, err := c.conn.SendRequest(aliveRequest, true, nil)
	return err == nil
}

// isDead reports whether this connection or one under it was cut for silence.
func (c *Client) isDead() bool {
	return c.dead.Load() || c.link.jump != nil && c.link.jump.isDead()
}

// lost returns why the connection ended. It waits for the end, so it is for
// callers that have seen it coming.
func (c *Client) lost() error {
	<-c.gone
	if c.isDead() {
		return fault.New(fault.Connect, "%w: %s silent for %s", ErrDeadPeer, c.t.addr(),
			c.t.keepAlive*time.Duration(c.t.keepAliveMax)).
			WithHint("Check the network between the hosts and that %s is up.", c.t.Host)
	}
	return fault.New(fault.Connect, "connection to %s lost: %w", c.t.addr(), c.lostErr).
		WithHint("Check that %s is up and see the log of its sshd.", c.t.Host)
}

// failed wraps err of an operation on the connection, unless the connection
// itself is the reason.
func (c *Client) failed(what string, err error) error {
	if !c.alive() {
		return c.lost()
	}
	return fault.New(fault.Connect, "%s on %s: %w", what, c.t, err).
		WithHint("See the log of sshd on %s; MaxSessions, ForceCommand or the login shell may forbid it.", c.t.Host)
}

// forwardAgent lets the far side use our agent, and the keys from our files if
// withFiles is set. It is asked for with s, but sshd grants it to a connection,
// once.
func (c *Client) forwardAgent(s *xssh.Session, withFiles bool) error {
	f := &c.forward
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.served {
		if err := agent.ForwardToAgent(c.conn, &f.agent); err != nil {
			return err
		}
		f.served = true
	}
	if withFiles {
		f.agent.shared.Store(true)
	}
	if f.granted {
		return nil
	}
	err := agent.RequestAgentForwarding(s)
	f.granted = err == nil
	return err
}

// maxOutput is the most that Run takes from a command, in bytes.
const maxOutput = 1 << 20

// Run runs argv with stdin (nil is empty) and returns its standard output, at
// most 1 MiB. If the command fails, the error is an *ExitError with the end of
// its standard error output in the text.
func (c *Client) Run(ctx context.Context, argv []string, stdin io.Reader) ([]byte, error) {
	var message tail
	s, err := c.Start(ctx, argv, SessionOptions{Stderr: &message})
	if err != nil {
		return nil, err
	}
	defer s.Close()
	go func() {
		if stdin != nil {
			io.Copy(s, stdin)
		}
		s.CloseWrite()
	}()
	out, err := io.ReadAll(io.LimitReader(s, maxOutput+1))
	if err != nil {
		return nil, err
	}
	if len(out) > maxOutput {
		return nil, fault.New(fault.Protocol, "output of %q on %s exceeds 1 MiB", argv[0], c.t)
	}
	err = s.Wait()
	var exit *ExitError
	if errors.As(err, &exit) {
		return out, fmt.Errorf("run %q on %s: %w%s", argv[0], c.t, exit, message.suffix())
	}
	return out, err
}
