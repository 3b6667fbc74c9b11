package migrate

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/lifecycle"
	"github.com/vzkit/vzkit/transport"
	"github.com/vzkit/vzkit/transport/ssh"
)

// program is what runs at the far end of an SSH session.
const program = "vzmigrate"

// A connection is dead when it has been silent for KeepAliveMax times
// KeepAlive, though asked.
const (
	KeepAlive    = 2 * time.Second
	KeepAliveMax = 3
)

// Over returns a Dialer that starts a receiver on the target over SSH. Lines
// that the far end prints go to note.
func Over(target *ssh.Target, note func(string)) Dialer {
	return func(ctx context.Context) (io.ReadWriteCloser, error) {
		return start(ctx, target, []string{program, "--receive"}, false, note)
	}
}

// remote is a program of ours at the far end of an SSH session.
type remote struct {
	*ssh.Session
	client *ssh.Client
	name   string
	heard  bool // it has said something
	once   sync.Once
}

// start runs argv on the target. The session outlives ctx: how a migration
// ends is decided by its protocol.
func start(ctx context.Context, target *ssh.Target, argv []string, forward bool, note func(string)) (*remote, error) {
	client, err := ssh.Dial(ctx, target)
	if err != nil {
		return nil, err
	}
	session, err := client.Start(context.WithoutCancel(ctx), argv,
		ssh.SessionOptions{ForwardAgent: forward, Stderr: &lineWriter{emit: note}})
	if err != nil {
		client.Close()
		return nil, err
	}
	return &remote{Session: session, client: client, name: target.Name}, nil
}

// Read explains the end of a program that could not be started.
func (r *remote) Read(p []byte) (int, error) {
	n, err := r.Session.Read(p)
	r.heard = r.heard || n > 0
	if err == io.EOF && !r.heard {
		var exit *ssh.ExitError
		if errors.As(r.Wait(), &exit) && exit.Code == 127 {
			return n, fault.New(fault.NoEngine, "%s has no %s on its PATH", r.name, program).
				WithHint("Install vzkit there: make install.")
		}
	}
	return n, err
}

// Close ends the session and the connection. Closing twice is fine.
func (r *remote) Close() error {
	r.once.Do(func() {
		r.Session.Close()
		r.client.Close()
	})
	return nil
}

// lineWriter passes whole lines on.
type lineWriter struct {
	mu   sync.Mutex
	part string
	emit func(string)
}

func (w *lineWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	lines := strings.Split(w.part+string(p), "\n")
	w.part = lines[len(lines)-1]
	if len(w.part) > 4096 { // a line without an end
		lines, w.part = append(lines, ""), ""
	}
	for _, l := range lines[:len(lines)-1] {
		w.emit(transport.Clean(l))
	}
	return len(p), nil
}

// Job is what a source on another machine is told to do: one line of JSON on
// the standard input of `vzmigrate --serve`. The end of that input calls the
// migration off.
type Job struct {
	Container   string        `json:"container"` // CTID or NAME
	From        string        `json:"from"`      // the hosts, as the user calls them
	To          string        `json:"to"`
	Target      string        `json:"target"` // what the source connects to
	User        string        `json:"user,omitempty"`
	Port        int           `json:"port,omitempty"`
	KnownHosts  []byte        `json:"known_hosts,omitempty"` // the destination's host keys that the user trusts
	Memory      MemoryOptions `json:"memory"`
	Files       FileOptions   `json:"files"`
	RequireLive bool          `json:"require_live"`
	KeepFiles   bool          `json:"keep_files"`
	KeepDst     bool          `json:"keep_dst"`
	Layout      string        `json:"layout,omitempty"`
}

// Drive has the source do a job and passes its events on. The source connects
// to the destination by itself, with the agent and the keys of this machine.
func Drive(ctx context.Context, source *ssh.Target, job Job, emit func(Event)) (*Report, error) {
	r, err := start(ctx, source, []string{program, "--serve"}, true, func(line string) { emit(Event{Kind: Note, Text: line}) })
	if err != nil && ctx.Err() != nil {
		return nil, fault.New(fault.Interrupted, "interrupted before anything began")
	}
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if err := json.NewEncoder(r).Encode(job); err != nil {
		return nil, fault.New(fault.Connect, "send job to %s: %w", source.Name, err)
	}
	stop := context.AfterFunc(ctx, func() { r.CloseWrite() })
	defer stop()
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 64<<10), 1<<20)
	for lines.Scan() {
		var e Event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return nil, fault.New(fault.Protocol, "%s says %q", source.Name, transport.Clean(lines.Text()))
		}
		switch e.Kind {
		case Finished:
			if e.Report == nil {
				return nil, fault.New(fault.Protocol, "%s finished without a report", source.Name)
			}
			return e.Report, nil
		case Failed:
			err := fault.New(fault.Kind(e.Fault), "%s", transport.Clean(e.Text))
			err.Hint = transport.Clean(e.Hint)
			return nil, err
		}
		emit(e)
	}
	if err := lines.Err(); err != nil {
		return nil, fault.New(fault.Connect, "lost connection to %s: %w", source.Name, err).
			WithHint("The migration is called off unless it had been decided already: vzctl status on both hosts tells.")
	}
	return nil, fault.New(fault.Connect, "%s ended without a word", source.Name)
}

// Serve does the job that comes on in, on this machine, and writes events to
// out, a line of JSON each; the last one tells how it ended.
func Serve(ctx context.Context, h *lifecycle.Host, in io.Reader, out io.Writer) error {
	events := json.NewEncoder(out)
	var mu sync.Mutex
	emit := func(e Event) {
		mu.Lock()
		defer mu.Unlock()
		_ = events.Encode(e) // nobody listens any more: the migration decides for itself
	}
	report, err := serve(ctx, h, in, emit)
	if err != nil {
		emit(Event{Kind: Failed, Text: err.Error(), Hint: fault.HintOf(err), Fault: uint16(fault.KindOf(err))})
		return err
	}
	emit(Event{Kind: Finished, Report: report})
	return nil
}

// maxJob bounds the job's line, in bytes; most of it is known_hosts.
const maxJob = 1 << 20

func serve(ctx context.Context, h *lifecycle.Host, in io.Reader, emit func(Event)) (*Report, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var job Job
	input := json.NewDecoder(io.LimitReader(in, maxJob))
	if err := input.Decode(&job); err != nil {
		return nil, fault.New(fault.Usage, "read job: %w", err)
	}
	go func() { // until the end of the input
		_, _ = io.Copy(io.Discard, in)
		cancel()
	}()
	return job.run(ctx, h, emit)
}

func (j Job) run(ctx context.Context, h *lifecycle.Host, emit func(Event)) (*Report, error) {
	c, err := h.Find(j.Container)
	if err != nil {
		return nil, err
	}
	if _, err := j.Memory.FileCodec(); err != nil {
		return nil, err
	}
	target, err := ssh.Resolve(j.Target, ssh.Options{User: j.User, Port: j.Port, KnownHosts: j.KnownHosts, KeepAlive: KeepAlive, KeepAliveMax: KeepAliveMax})
	if err != nil {
		return nil, err
	}
	target.Name = j.To // as the user calls it
	return Send(ctx, c, SendOptions{
		From: j.From, To: j.To, Memory: j.Memory, Files: j.Files, RequireLive: j.RequireLive,
		KeepFiles: j.KeepFiles, KeepDst: j.KeepDst, Layout: j.Layout, Emit: emit,
		Dial: Over(target, func(line string) { emit(Event{Kind: Note, Text: j.To + ": " + line}) }),
	})
}
