package ssh

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	xssh "golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"
)

// link is the way to the server: a TCP connection, a channel of a jump host's
// connection, or a ProxyCommand. It counts what arrives, measures how fast it
// takes what goes out, and owns what carries it.
type link struct {
	net.Conn
	received atomic.Uint64 // bytes, ever
	sent     atomic.Uint64 // bytes, ever
	writing  atomic.Int64  // nanoseconds that this took
	joins    atomic.Bool   // packets are put together
	begun    []byte        // of a packet, by the one goroutine that writes

	jump  *Client       // nil unless ProxyJump
	proxy *proxyProcess // nil unless ProxyCommand
}

func (l *link) Read(p []byte) (int, error) {
	n, err := l.Conn.Read(p)
	l.received.Add(uint64(n))
	return n, err
}

// buffered is the size of the library's write buffer. It writes a packet that is
// larger in two pieces, of which this is the first.
const buffered = 4096

// Write puts the pieces of a packet together: the first one alone would wake the
// far side for nothing, which costs a tenth of all the time that bytes take.
func (l *link) Write(p []byte) (int, error) {
	if len(p) == buffered && l.joins.Load() {
		l.begun = append(l.begun, p...)
		return len(p), nil
	}
	start := time.Now()
	pieces := net.Buffers{p}
	if len(l.begun) > 0 {
		pieces = net.Buffers{l.begun, p}
		l.begun = l.begun[:0]
	}
	n, err := pieces.WriteTo(l.Conn)
	l.writing.Add(int64(time.Since(start)))
	l.sent.Add(uint64(n)) //nolint:gosec // never negative
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

// join begins to put packets together, if none of them can have just the size
// of a first piece: one of AES-GCM is 4 bytes, some times 16, and 16.
func (l *link) join(conn xssh.Conn) {
	if c, ok := conn.(xssh.AlgorithmsConnMetadata); ok {
		l.joins.Store(strings.HasSuffix(c.Algorithms().Write.Cipher, "-gcm@openssh.com"))
	}
}

// roundTrip is the least that the kernel has seen on the TCP connection
// (tcp(7), TCP_INFO), or 0: nobody knows.
func (l *link) roundTrip() time.Duration {
	tcp, ok := l.Conn.(*net.TCPConn)
	if !ok {
		return 0
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return 0
	}
	var info *unix.TCPInfo
	_ = raw.Control(func(fd uintptr) { info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) })
	if err != nil || info == nil {
		return 0
	}
	return time.Duration(info.Min_rtt) * time.Microsecond
}

// abort breaks the link at once, without waiting for anybody. It goes down to
// the TCP connection or ProxyCommand underneath, because a channel of a stalled
// jump host cannot be closed. Everything that waits on the link returns.
func (l *link) abort() {
	if l.jump != nil {
		l.jump.link.abort()
		return
	}
	l.Conn.Close()
}

// release gives back what is under the connection.
func (l *link) release() {
	l.abort()
	if l.jump != nil {
		l.jump.Close()
	}
	if l.proxy != nil {
		l.proxy.stop()
	}
}

// connect opens the way to the target.
func (t *Target) connect(ctx context.Context) (*link, error) {
	switch {
	case t.jump != nil:
		return t.connectVia(ctx)
	case t.proxyCommand != "":
		return startProxy(t.proxyCommand)
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, t.network, t.addr())
	if err != nil {
		return nil, err
	}
	return &link{Conn: conn}, nil
}

func (t *Target) connectVia(ctx context.Context) (*link, error) {
	jump, err := Dial(ctx, t.jump)
	if err != nil {
		return nil, err
	}
	conn, err := jump.conn.DialContext(ctx, "tcp", t.addr())
	if err != nil {
		jump.link.abort()
		jump.Close()
		return nil, fmt.Errorf("by way of %s: %w", t.jump, err)
	}
	return &link{Conn: conn, jump: jump}, nil
}

// proxyProcess is a running ProxyCommand.
type proxyProcess struct {
	cmd     *exec.Cmd
	message tail
	once    sync.Once
	err     error
}

// startProxy runs command like ssh: by the user's shell, with one end of a
// socket pair as its standard input and output. It gets a process group of its
// own, so that Ctrl-C at the terminal leaves the connection to its owner.
func startProxy(command string) (*link, error) {
	shell := os.Getenv("SHELL")
	if shell == "" {
		shell = "/bin/sh"
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socketpair: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "proxy"), os.NewFile(uintptr(fds[1]), "proxy")
	defer ours.Close()
	defer theirs.Close()
	p := &proxyProcess{cmd: exec.Command(shell, "-c", "exec "+command)}
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = theirs, theirs, &p.message
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	p.cmd.WaitDelay = time.Second
	conn, err := net.FileConn(ours)
	if err != nil {
		return nil, fmt.Errorf("socketpair: %w", err)
	}
	if err := p.cmd.Start(); err != nil {
		conn.Close()
		return nil, fmt.Errorf("proxy command %q: %w", command, err)
	}
	return &link{Conn: conn, proxy: p}, nil
}

// stop ends the process and returns how it ended.
func (p *proxyProcess) stop() error {
	p.once.Do(func() {
		if err := unix.Kill(-p.cmd.Process.Pid, unix.SIGTERM); err != nil && !errors.Is(err, unix.ESRCH) {
			p.err = err
		}
		timer := time.AfterFunc(time.Second, func() { unix.Kill(-p.cmd.Process.Pid, unix.SIGKILL) })
		defer timer.Stop()
		p.err = errors.Join(p.err, p.cmd.Wait())
	})
	return p.err
}

// report says how the process ended and what it wrote to standard error.
func (p *proxyProcess) report() string {
	status := "no SSH server behind it"
	if err := p.stop(); err != nil {
		status = oneLine(err.Error())
	}
	return status + p.message.suffix()
}

// maxTail is how much of a program's messages is kept, in bytes.
const maxTail = 4096

// tail is a writer that keeps the last maxTail bytes.
type tail struct {
	mu sync.Mutex
	b  []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p[max(0, len(p)-maxTail):]...)
	t.b = t.b[max(0, len(t.b)-maxTail):]
	return len(p), nil
}

// suffix returns what was kept as one line after a colon, or nothing.
func (t *tail) suffix() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if line := oneLine(string(t.b)); line != "" {
		return ": " + line
	}
	return ""
}
