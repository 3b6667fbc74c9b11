package ssh

import (
	"context"
	"errors"
	"io"
	"maps"
	"slices"
	"sync"
	"time"

	xssh "golang.org/x/crypto/ssh"

	"github.com/vzkit/vzkit/internal/fault"
)

// SessionOptions are the extras of a remote command.
type SessionOptions struct {
	// ForwardAgent lets this command and all later ones of the connection use
	// our agent and the keys that were read from files here. Start fails if
	// the server forbids it. With ForwardAgent in ssh_config the agent alone is
	// forwarded, if the server lets us.
	ForwardAgent bool
	Stderr       io.Writer         // nil discards
	Env          map[string]string // what the server's AcceptEnv does not list is dropped
}

// Session is a running remote command. Read is its standard output, Write its
// standard input. All methods may be called from several goroutines.
type Session struct {
	c   *Client
	s   *xssh.Session
	ctx context.Context
	in  io.WriteCloser
	out io.Reader

	endInput func() error
	close    func() error
	closed   chan struct{} // closed by Close
	done     chan struct{} // closed when the command has ended
	result   error         // of the command; read after done
}

// Start runs argv on the server, with each argument quoted for a POSIX shell.
// The session is closed when ctx is. Errors are fault.Usage for argv and
// fault.Connect.
func (c *Client) Start(ctx context.Context, argv []string, o SessionOptions) (*Session, error) {
	line, err := quote(argv)
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, fault.New(endKind(ctx), "start %q: %w", argv[0], err)
	}
	xs, err := c.conn.NewSession()
	if err != nil {
		return nil, c.failed("open session", err)
	}
	s := &Session{c: c, s: xs, ctx: ctx, closed: make(chan struct{}), done: make(chan struct{})}
	if err := s.start(line, o); err != nil {
		xs.Close()
		return nil, err
	}
	return s, nil
}

func (s *Session) start(line string, o SessionOptions) (err error) {
	if err := s.prepare(o); err != nil {
		return err
	}
	if s.in, err = s.s.StdinPipe(); err != nil {
		return s.c.failed("open stdin", err)
	}
	if s.out, err = s.s.StdoutPipe(); err != nil {
		return s.c.failed("open stdout", err)
	}
	s.s.Stderr = o.Stderr
	if err := s.s.Start(line); err != nil {
		return s.c.failed("start command", err)
	}
	s.endInput = sync.OnceValue(s.in.Close)
	s.close = sync.OnceValue(func() error {
		close(s.closed)
		return ignoreEOF(s.s.Close())
	})
	stop := context.AfterFunc(s.ctx, func() { s.close() })
	go func() {
		defer stop()
		s.result = s.classify(s.s.Wait())
		close(s.done)
	}()
	return nil
}

// prepare sends what has to come before the command.
func (s *Session) prepare(o SessionOptions) error {
	for _, key := range slices.Sorted(maps.Keys(o.Env)) {
		// A refusal is not told from other errors; those show up at Start.
		s.s.Setenv(key, o.Env[key])
	}
	if !o.ForwardAgent && (!s.c.t.forwardAgent || s.c.ids.agent == nil) {
		return nil
	}
	err := s.c.forwardAgent(s.s, o.ForwardAgent)
	if err != nil && o.ForwardAgent {
		if !s.c.alive() {
			return s.c.lost()
		}
		return fault.New(fault.Connect, "forward agent to %s: %w", s.c.t, err).
			WithHint("Set AllowAgentForwarding yes in sshd_config on %s.", s.c.t.Host)
	}
	return nil
}

// Read reads standard output. It returns io.EOF only if the command has really
// ended its output; a lost connection is another error.
func (s *Session) Read(p []byte) (int, error) {
	n, err := s.out.Read(p)
	if err == io.EOF {
		err = s.endOfOutput()
	}
	return n, err
}

// endOfOutput tells the end of the output from the end of the connection, which
// the library reports alike: if the server still answers, it was the former.
func (s *Session) endOfOutput() error {
	if err := s.ended(); err != nil {
		return err
	}
	if s.c.alive() {
		return io.EOF
	}
	<-s.done
	var exit *ExitError
	if s.result == nil || errors.As(s.result, &exit) {
		return io.EOF
	}
	return s.result
}

// Write writes standard input. After the command has closed it, Write returns
// io.ErrClosedPipe.
func (s *Session) Write(p []byte) (int, error) {
	n, err := s.in.Write(p)
	if err == nil {
		return n, nil
	}
	if ended := s.ended(); ended != nil {
		return n, ended
	}
	if !s.c.alive() {
		return n, s.c.lost()
	}
	return n, io.ErrClosedPipe
}

// Busy is how many bytes have gone out on the connection, all sessions and SSH's
// own included, and how long the network took to take them: not for how long
// the far side had no room.
func (s *Session) Busy() (bytes uint64, d time.Duration) {
	return s.c.link.sent.Load(), time.Duration(s.c.link.writing.Load())
}

// RoundTrip is the least time to the server and back so far, 0 if nobody knows.
func (s *Session) RoundTrip() time.Duration { return s.c.link.roundTrip() }

// CloseWrite ends standard input: the command reads EOF.
func (s *Session) CloseWrite() error {
	return ignoreEOF(s.endInput())
}

// Close ends the session without waiting for the command, which finds its
// standard input and output closed. It is told nothing else: sshd sends no
// signal to a command without a terminal.
func (s *Session) Close() error { return s.close() }

// Wait waits for the end of the command. The error is an *ExitError if it
// failed, errors.Is ErrDeadPeer if the server fell silent, or the context's if
// that ended the session. Somebody has to read standard output meanwhile.
func (s *Session) Wait() error {
	select {
	case <-s.done:
		return s.result
	case <-s.closed:
	}
	select {
	case <-s.done:
		return s.result
	default:
		return s.ended()
	}
}

// ended returns the error of a session that was ended from this side, else nil.
func (s *Session) ended() error {
	if s.ctx.Err() != nil {
		return fault.New(endKind(s.ctx), "session on %s: %w", s.c.t, context.Cause(s.ctx))
	}
	select {
	case <-s.closed:
		return errClosed
	default:
		return nil
	}
}

// classify turns the library's verdict into ours.
func (s *Session) classify(err error) error {
	if ended := s.ended(); ended != nil {
		return ended
	}
	var exit *xssh.ExitError
	var missing *xssh.ExitMissingError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &exit):
		return &ExitError{exit.ExitStatus(), exit.Signal()}
	case !errors.As(err, &missing):
		return fault.New(fault.Connect, "session on %s: %w", s.c.t, err)
	case !s.c.alive():
		return s.c.lost()
	}
	return fault.New(fault.Connect, "command on %s ended without status", s.c.t).
		WithHint("See the log of sshd on %s.", s.c.t.Host)
}

// ignoreEOF drops the library's way of saying that the channel is closed
// already.
func ignoreEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}
