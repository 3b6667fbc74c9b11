package test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vzkit/vzkit/internal/lab"
)

// patience bounds whatever a test waits for. It is no measure of anything.
const patience = 90 * time.Second

// quickExit is for the environment of every command on a host: the helper that
// enters the host is this program, which the race detector would let wait for
// a second at its end.
const quickExit = "GORACE=atexit_sleep_ms=0"

// host is a host of the lab.
type host struct{ *lab.Host }

func theHost(name string) (host, error) {
	h, err := theLab.Host(name)
	return host{h}, err
}

// admin is where users and clients are.
func admin(t testing.TB) host {
	t.Helper()
	h, err := theHost(lab.Admin)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// outcome is what became of a command.
type outcome struct {
	argv           string
	code           int
	stdout, stderr string
}

func (o outcome) String() string {
	return fmt.Sprintf("%s: exit code %d\n%s%s", o.argv, o.code, o.stdout, o.stderr)
}

// run runs a command on the host to its end.
func (h host) run(t testing.TB, argv ...string) outcome {
	t.Helper()
	return h.start(t, argv...).wait()
}

// ok runs a command that has to work, and returns its output, trimmed.
func (h host) ok(t testing.TB, argv ...string) string {
	t.Helper()
	o := h.run(t, argv...)
	if o.code != 0 {
		t.Fatalf("%s: %v", h.Name(), o)
	}
	return strings.TrimSpace(o.stdout)
}

// sh runs a shell script that has to work.
func (h host) sh(t testing.TB, script string, args ...any) string {
	t.Helper()
	return h.ok(t, "sh", "-c", fmt.Sprintf(script, args...))
}

// wants checks the exit code, and that each of the texts was said.
func (o outcome) wants(t testing.TB, code int, texts ...string) {
	t.Helper()
	if o.code != code {
		t.Errorf("%v\nwant exit code %d", o, code)
	}
	for _, text := range texts {
		if !strings.Contains(o.stdout+o.stderr, text) {
			t.Errorf("%v\nwant %q in it", o, text)
		}
	}
}

// process is a command that runs on a host.
type process struct {
	cmd    *exec.Cmd
	argv   string
	stdin  io.WriteCloser
	stdout bytes.Buffer
	ended  chan struct{}
	cancel context.CancelFunc

	mu     sync.Mutex
	stderr strings.Builder
	lines  chan string // of stderr, as they come
}

// start starts a command on the host, which ends with the test at the latest.
func (h host) start(t testing.TB, argv ...string) *process {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	p := &process{
		cmd: h.Command(ctx, argv...), argv: strings.Join(argv, " "), cancel: cancel,
		ended: make(chan struct{}), lines: make(chan string, 1000),
	}
	p.cmd.Env = append(p.cmd.Env, quickExit)
	p.cmd.Stdout = &p.stdout
	var err error
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go p.follow(stderr)
	t.Cleanup(func() { cancel(); <-p.ended })
	return p
}

func (p *process) follow(stderr io.Reader) {
	defer close(p.ended)
	defer close(p.lines)
	text := bufio.NewReader(stderr)
	for {
		line, err := text.ReadString('\n')
		p.mu.Lock()
		p.stderr.WriteString(line)
		p.mu.Unlock()
		select {
		case p.lines <- line:
		default: // nobody follows
		}
		if err != nil {
			break
		}
	}
	_ = p.cmd.Wait()
}

// wait returns what became of the command.
func (p *process) wait() outcome {
	p.stdin.Close()
	<-p.ended
	p.cancel()
	code := p.cmd.ProcessState.ExitCode()
	if ws := p.cmd.ProcessState.Sys().(syscall.WaitStatus); ws.Signaled() {
		code = 128 + int(ws.Signal())
	}
	return outcome{p.argv, code, p.stdout.String(), p.stderr.String()}
}

// reaches waits for the phase to be reported as done. It is false if the
// command ends without it.
func (p *process) reaches(phase string) bool {
	for line := range p.lines {
		if strings.HasPrefix(line, phase) {
			return true
		}
	}
	return false
}

// interrupt is Ctrl-C.
func (p *process) interrupt() { _ = p.cmd.Process.Signal(syscall.SIGINT) }

// ready starts a shell on the host that waits for the word, so that the script
// runs at once when it is given.
func (h host) ready(t testing.TB, script string, args ...any) (now func()) {
	t.Helper()
	p := h.start(t, "sh", "-c", "echo ready >&2; read word && "+fmt.Sprintf(script, args...))
	if !p.reaches("ready") {
		t.Fatal(p.wait())
	}
	return func() {
		fmt.Fprintln(p.stdin, "now")
		if o := p.wait(); o.code != 0 {
			t.Errorf("%s: %v", h.Name(), o)
		}
	}
}

// eventually waits for what takes its own time.
func eventually(t testing.TB, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !done(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("still waiting: %s", what)
		}
	}
}
