package ssh

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/vzkit/vzkit/internal/fault"
)

func start(t *testing.T, c *Client, o SessionOptions, argv ...string) *Session {
	t.Helper()
	s, err := c.Start(context.Background(), argv, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestExitStatus(t *testing.T) {
	s := startServer(t)
	c := s.newClient(t).dial(t, Options{})
	for _, x := range []struct {
		script string
		want   ExitError
	}{
		{"exit 1", ExitError{1, ""}},
		{"exit 255", ExitError{255, ""}},
		{"kill -TERM $$", ExitError{143, "TERM"}},
	} {
		_, err := c.Run(context.Background(), []string{"sh", "-c", "echo gone wrong >&2; " + x.script}, nil)
		var exit *ExitError
		if !errors.As(err, &exit) || *exit != x.want || !strings.Contains(err.Error(), "gone wrong") {
			t.Errorf("%s: %v", x.script, err)
		}
	}
	if got := run(t, c, "true"); got != "" {
		t.Errorf("output %q", got)
	}
}

func TestWeirdArguments(t *testing.T) {
	s := startServer(t)
	c := s.newClient(t).dial(t, Options{})
	got := strings.Split(strings.TrimSuffix(run(t, c, append([]string{"printf", `%s\0`}, weirdArgs...)...), "\x00"), "\x00")
	if !slices.Equal(got, weirdArgs) {
		t.Errorf("got %q", got)
	}
	if _, err := c.Start(context.Background(), nil, SessionOptions{}); fault.KindOf(err) != fault.Usage {
		t.Errorf("empty command: %v", err)
	}
}

// TestLargeStreams sends 100 MB there and back at the same time.
func TestLargeStreams(t *testing.T) {
	const size = 100 << 20
	s := startServer(t)
	c := s.newClient(t).dial(t, Options{})
	session := start(t, c, SessionOptions{}, "cat")
	sent, got := sha256.New(), sha256.New()
	wrote := make(chan error, 1)
	go func() {
		source := io.LimitReader(rand.NewChaCha8([32]byte{1}), size)
		_, err := io.Copy(session, io.TeeReader(source, sent))
		wrote <- errors.Join(err, session.CloseWrite())
	}()
	n, err := io.Copy(got, session)
	if err := errors.Join(err, <-wrote, session.Wait()); err != nil || n != size {
		t.Fatalf("%d bytes, %v", n, err)
	}
	if !bytes.Equal(sent.Sum(nil), got.Sum(nil)) {
		t.Error("checksums differ")
	}
}

func TestRunOutputCap(t *testing.T) {
	s := startServer(t)
	c := s.newClient(t).dial(t, Options{})
	if n := len(run(t, c, "head", "-c", fmt.Sprint(maxOutput), "/dev/zero")); n != maxOutput {
		t.Errorf("%d bytes", n)
	}
	_, err := c.Run(context.Background(), []string{"cat", "/dev/zero"}, nil)
	if fault.KindOf(err) != fault.Protocol {
		t.Errorf("err = %v", err)
	}
	out, err := c.Run(context.Background(), []string{"tr", "a", "b"}, strings.NewReader("aba"))
	if err != nil || string(out) != "bbb" {
		t.Errorf("%q, %v", out, err)
	}
}

func TestStderrAndEnv(t *testing.T) {
	s := startServer(t)
	c := s.newClient(t).dial(t, Options{})
	var message bytes.Buffer
	session := start(t, c, SessionOptions{
		Stderr: &message,
		Env:    map[string]string{"SSH_TEST_A": "x y", "NOT_ACCEPTED": "z"},
	}, "sh", "-c", `echo "$SSH_TEST_A$NOT_ACCEPTED"; echo oops >&2`)
	out, err := io.ReadAll(session)
	if err := errors.Join(err, session.Wait()); err != nil {
		t.Fatal(err)
	}
	if string(out) != "x y\n" || message.String() != "oops\n" {
		t.Errorf("stdout %q, stderr %q", out, message.String())
	}
}

func TestCloseEndsEverything(t *testing.T) {
	s := startServer(t)
	c := s.newClient(t).dial(t, Options{})
	session := start(t, c, SessionOptions{}, "cat")
	if err := session.Close(); err != nil {
		t.Fatal(err)
	}
	if err := session.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
	if err := session.Wait(); err == nil {
		t.Error("Wait found a good end")
	}
	if _, err := io.ReadAll(session); !errors.Is(err, errClosed) {
		t.Errorf("Read: %v", err)
	}
	if _, err := session.Write([]byte("x")); !errors.Is(err, errClosed) {
		t.Errorf("Write: %v", err)
	}

	session = start(t, c, SessionOptions{}, "cat")
	c.Close()
	for what, err := range map[string]error{
		"Wait": session.Wait(), "Read": second(session.Read(make([]byte, 1))), "Write": second(session.Write([]byte("x"))),
		"Start": second(c.Start(context.Background(), []string{"true"}, SessionOptions{})),
	} {
		if fault.KindOf(err) != fault.Connect || errors.Is(err, io.EOF) && what == "Read" {
			t.Errorf("%s after the connection was closed: %v", what, err)
		}
	}
	if err := c.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
}

func second[T any](_ T, err error) error { return err }

func TestWriteAfterExit(t *testing.T) {
	s := startServer(t)
	c := s.newClient(t).dial(t, Options{})
	session := start(t, c, SessionOptions{}, "true")
	if err := session.Wait(); err != nil {
		t.Fatal(err)
	}
	if _, err := session.Write([]byte("x")); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("Write: %v", err)
	}
	if _, err := io.ReadAll(session); err != nil {
		t.Errorf("Read: %v", err)
	}
	if err := session.CloseWrite(); err != nil {
		t.Errorf("CloseWrite: %v", err)
	}
}

func TestContextEndsSession(t *testing.T) {
	s := startServer(t)
	c := s.newClient(t).dial(t, Options{})
	ctx, cancel := context.WithCancel(context.Background())
	session, err := c.Start(ctx, []string{"cat"}, SessionOptions{})
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := session.Read(make([]byte, 1)); !errors.Is(err, context.Canceled) {
		t.Errorf("Read: %v", err)
	}
	if err := session.Wait(); !errors.Is(err, context.Canceled) || fault.KindOf(err) != fault.Interrupted {
		t.Errorf("Wait: %v", err)
	}
	if got := run(t, c, "echo", "on"); got != "on\n" {
		t.Errorf("the connection does not go on: %q", got)
	}
}

// TestEndOfOutputBeforeExit checks that EOF comes when the command closes its
// output and not when it ends.
func TestEndOfOutputBeforeExit(t *testing.T) {
	s := startServer(t)
	c := s.newClient(t).dial(t, Options{})
	session := start(t, c, SessionOptions{}, "sh", "-c", "exec 1>&- 2>&-; cat; exit 3")
	if _, err := io.ReadAll(session); err != nil {
		t.Fatal(err)
	}
	session.CloseWrite()
	var exit *ExitError
	if err := session.Wait(); !errors.As(err, &exit) || exit.Code == 0 {
		t.Errorf("Wait: %v", err)
	}
}

func TestSessionRefused(t *testing.T) {
	s := startServer(t, "MaxSessions 0")
	c := s.newClient(t).dial(t, Options{})
	_, err := c.Run(context.Background(), []string{"true"}, nil)
	if fault.KindOf(err) != fault.Connect || hint(err) == "" {
		t.Errorf("err = %v", err)
	}
}
