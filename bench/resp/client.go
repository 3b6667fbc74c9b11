package resp

import (
	"context"
	"net"
	"time"
)

// Client is one connection to a server, used by one goroutine at a time.
type Client struct {
	net.Conn
	*Reader
}

// NewClient returns a Client on conn. Closing conn stays with the caller.
func NewClient(conn net.Conn) *Client {
	return &Client{Conn: conn, Reader: NewReader(conn)}
}

// Do sends one command and reads its reply. An error reply is returned as a
// ServerError.
func (c *Client) Do(args ...string) (Reply, error) {
	if _, err := c.Write(AppendCommand(nil, args...)); err != nil {
		return Reply{}, err
	}
	reply, err := c.ReadReply()
	if err != nil {
		return Reply{}, within(err)
	}
	return reply, reply.Err()
}

// A batch of a pipeline ends at the number of commands or of bytes that is
// reached first. The bytes fit into socket buffers, so that a server which
// cannot write replies before they are read does not block the batch.
const (
	batchCommands = 512
	batchBytes    = 64 << 10
)

// Pipeline sends n commands in batches and passes each reply on, in order.
// Command appends command i to b; got may return an error to stop. When ctx
// ends or the server answers nothing for patience, the connection's deadline
// makes it return an error, after which the connection is of no more use.
func (c *Client) Pipeline(ctx context.Context, n uint64, patience time.Duration,
	command func(b []byte, i uint64) []byte, got func(i uint64, r Reply) error) error {
	stop := context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	var b []byte
	for done := uint64(0); done < n; {
		end := done
		for b = b[:0]; end < n && end-done < batchCommands && len(b) < batchBytes; end++ {
			b = command(b, end)
		}
		c.SetDeadline(time.Now().Add(patience))
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := c.batch(b, done, end, got); err != nil {
			return err
		}
		done = end
	}
	return c.SetDeadline(time.Time{})
}

func (c *Client) batch(b []byte, from, to uint64, got func(i uint64, r Reply) error) error {
	if _, err := c.Write(b); err != nil {
		return err
	}
	for i := from; i < to; i++ {
		reply, err := c.ReadReply()
		if err != nil {
			return within(err)
		}
		if err := got(i, reply); err != nil {
			return err
		}
	}
	return nil
}
