package test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/vzkit/vzkit/bench/load"
	"github.com/vzkit/vzkit/bench/resp"
)

// Ports that a container of the suite serves.
const (
	kvPort      = 6379 // vzbench serve
	subjectPort = 7000 // subject
)

// container is a container of the suite.
type container struct {
	pair
	id   uint32
	addr string
	keys load.Config // loaded into its server
}

func (c *container) ctid() string { return fmt.Sprint(c.id) }

// create creates a container on the pair's source. It is destroyed, on
// whichever of the hosts it is, when the test ends.
func create(t testing.TB, p pair, template string, options ...string) *container {
	t.Helper()
	c := &container{pair: p}
	c.id, c.addr = nextCTID()
	argv := append([]string{"vzctl", "create", c.ctid(), "--ostemplate", template, "--ipadd", c.addr}, options...)
	p.src.ok(t, argv...)
	t.Cleanup(func() { c.destroy(t) })
	return c
}

// newContainer creates a minimal container that has the suite's programs.
func newContainer(t testing.TB, p pair, options ...string) *container {
	t.Helper()
	c := create(t, p, "minimal", options...)
	p.src.sh(t, "cp %s/vzbench %[1]s/subject /var/lib/vz/private/%d/usr/bin/", binDir(), c.id)
	return c
}

// running creates and starts a container that serves keys and values.
func running(t testing.TB, p pair, options ...string) *container {
	t.Helper()
	c := newContainer(t, p, options...)
	p.src.ok(t, "vzctl", "start", c.ctid())
	c.serve(t, p.src, "vzbench serve --listen 0.0.0.0:%d", kvPort)
	c.load(t)
	return c
}

// load waits for the container's server and fills it with keys.
func (c *container) load(t testing.TB) {
	t.Helper()
	eventually(t, "server to listen", func() bool { return c.ping() == nil })
	conn := c.dial(t, kvPort)
	defer conn.Close()
	c.keys = load.Config{Keys: 2000, Size: 100, Seed: uint64(c.id)}
	if _, err := load.Fill(t.Context(), conn, c.keys); err != nil {
		t.Fatal(err)
	}
}

// serve starts a daemon in the container, which is on h.
func (c *container) serve(t testing.TB, h host, command string, args ...any) {
	t.Helper()
	h.ok(t, "vzctl", "exec2", c.ctid(), "setsid "+fmt.Sprintf(command, args...)+" </dev/null >/dev/null 2>&1 &")
}

func (c *container) destroy(t testing.TB) {
	t.Helper()
	for _, h := range c.both() {
		if status := h.ok(t, "vzctl", "status", c.ctid()); strings.Contains(status, "deleted") {
			continue
		}
		h.ok(t, "vzctl", "stop", c.ctid(), "--fast")
		h.ok(t, "vzctl", "destroy", c.ctid())
	}
}

// connect dials the container from where clients are.
func (c *container) connect(ctx context.Context, port int) (net.Conn, error) {
	h, err := theHost("admin")
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return h.Dial(ctx, "tcp", fmt.Sprintf("%s:%d", c.addr, port))
}

func (c *container) dial(t testing.TB, port int) net.Conn {
	t.Helper()
	conn, err := c.connect(context.Background(), port)
	if err != nil {
		t.Fatalf("connect to container %d: %v", c.id, err)
	}
	return conn
}

func (c *container) ping() error {
	conn, err := c.connect(context.Background(), kvPort)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	reply, err := resp.NewClient(conn).Do("PING")
	if err == nil && string(reply.Text) != "PONG" {
		err = fmt.Errorf("server says %q", reply.Text)
	}
	return err
}

// migrate moves the container from the pair's source, as an admin would.
func (c *container) migrate(t testing.TB, flags ...string) outcome {
	t.Helper()
	return admin(t).run(t, c.command(flags...)...)
}

func (c *container) command(flags ...string) []string {
	return append(append([]string{"vzmigrate"}, flags...), c.src.Name(), c.dst.Name(), c.ctid())
}

// back is the container with the hosts' roles exchanged.
func (c *container) back() *container {
	other := *c
	other.src, other.dst = c.dst, c.src
	return &other
}

// stays checks that a migration that failed changed nothing: the container
// runs at the source, answers, and has lost nothing; the destination is clean.
func (c *container) stays(t testing.TB) {
	t.Helper()
	c.runsAt(t, c.src)
	c.absentAt(t, c.dst)
}

// moved checks that the container runs at the destination, and that nothing
// of it is left at the source.
func (c *container) moved(t testing.TB) {
	t.Helper()
	c.runsAt(t, c.dst)
	c.absentAt(t, c.src)
}

// runsAt checks that the container runs on h and has all its keys.
func (c *container) runsAt(t testing.TB, h host) {
	t.Helper()
	want := fmt.Sprintf("CTID %d exist mounted running", c.id)
	if status := h.ok(t, "vzctl", "status", c.ctid()); status != want {
		t.Errorf("on %s: %q, want %q", h.Name(), status, want)
	}
	if out := h.ok(t, "vzctl", "exec2", c.ctid(), "echo here"); out != "here" {
		t.Errorf("on %s: exec says %q", h.Name(), out)
	}
	conn := c.dial(t, kvPort)
	defer conn.Close()
	damage, err := load.Check(t.Context(), conn, c.keys)
	if err != nil || damage != (load.Damage{}) {
		t.Errorf("container %d on %s: keys %+v, %v", c.id, h.Name(), damage, err)
	}
}

// absentAt checks that nothing of the container is on h. What is just ending
// there gets its time.
func (c *container) absentAt(t testing.TB, h host) {
	t.Helper()
	var left string
	for end := time.Now().Add(15 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if left = h.traces(t, c); left == "" {
			return
		}
	}
	t.Errorf("container %d has left on %s:\n%s", c.id, h.Name(), left)
}

// oneOwner checks that the container is at exactly one host, runs there and
// answers, and returns that host. Its other host must be clean.
func (c *container) oneOwner(t testing.TB) host {
	t.Helper()
	if strings.Contains(c.src.ok(t, "vzctl", "status", c.ctid()), "running") {
		c.stays(t)
		return c.src
	}
	c.moved(t)
	return c.dst
}

// ask sends the subject a line and returns its answer.
func (c *container) ask(t testing.TB, format string, args ...any) string {
	t.Helper()
	conn := c.dial(t, subjectPort)
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(conn, format+"\n", args...)
	answer, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		t.Fatalf("ask subject %q: %v", format, err)
	}
	return strings.TrimSpace(answer)
}

// withSubject starts the subject in the container.
func (c *container) withSubject(t testing.TB, h host) {
	t.Helper()
	c.serve(t, h, "subject 0.0.0.0:%d", subjectPort)
	eventually(t, "subject to listen", func() bool {
		conn, err := c.connect(t.Context(), subjectPort)
		if err != nil {
			return false
		}
		return conn.Close() == nil
	})
}
