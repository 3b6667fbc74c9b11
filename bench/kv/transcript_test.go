package kv

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vzkit/vzkit/bench/resp"
)

var record = flag.String("record", "", "record the transcript's answers from the Redis at this address")

const transcript = "testdata/redis.txt"

// step is one line sent and the line that answers it.
type step struct{ send, answer string }

// readTranscript returns the comment at the transcript's head and its
// connections.
func readTranscript(t *testing.T) (head string, conns [][]step) {
	t.Helper()
	file, err := os.ReadFile(transcript)
	if err != nil {
		t.Fatal(err)
	}
	paragraphs := strings.Split(strings.TrimSpace(string(file)), "\n\n")
	for _, p := range paragraphs[1:] {
		var steps []step
		for line := range strings.Lines(p) {
			text, err := strconv.Unquote(strings.TrimSpace(line[1:]))
			switch {
			case err != nil:
				t.Fatalf("%q: %v", line, err)
			case line[0] == '>':
				steps = append(steps, step{send: text})
			case line[0] == '<':
				steps[len(steps)-1].answer = text
			}
		}
		conns = append(conns, steps)
	}
	return paragraphs[0], conns
}

// TestTranscript holds the server's answers against those of Redis, byte for
// byte. An answer that ends in "EOF" ends the connection.
func TestTranscript(t *testing.T) {
	head, conns := readTranscript(t)
	if *record != "" {
		recordTranscript(t, head, conns)
		return
	}
	addr := serve(t, New(DefaultMaxBytes))
	for _, steps := range conns {
		conn := dial(t, addr)
		for _, s := range steps {
			io.WriteString(conn, s.send)
			text, eof := strings.CutSuffix(s.answer, "EOF")
			checkReadable(t, text)
			got := make([]byte, len(text))
			if _, err := io.ReadFull(conn, got); err != nil || string(got) != text {
				t.Errorf("%q: got %q, want %q (%v)", s.send, got, text, err)
			}
			if eof {
				if rest, err := io.ReadAll(conn); len(rest) > 0 || err != nil {
					t.Errorf("%q: then %q, %v instead of the end", s.send, rest, err)
				}
			}
		}
	}
}

// checkReadable holds the client's reader against the same answers.
func checkReadable(t *testing.T, replies string) {
	t.Helper()
	r := resp.NewReader(strings.NewReader(replies))
	for {
		if _, err := r.ReadReply(); err == io.EOF {
			return
		} else if err != nil {
			t.Errorf("read %q: %v", replies, err)
			return
		}
	}
}

func recordTranscript(t *testing.T, head string, conns [][]step) {
	var out bytes.Buffer
	out.WriteString(head + "\n")
	for _, steps := range conns {
		conn := dial(t, *record)
		out.WriteString("\n")
		for _, s := range steps {
			io.WriteString(conn, s.send)
			fmt.Fprintf(&out, "> %s\n< %s\n", strconv.Quote(s.send), strconv.Quote(untilQuiet(conn)))
		}
	}
	if err := os.WriteFile(transcript, out.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}

// untilQuiet reads what arrives until nothing more does for a while.
func untilQuiet(conn net.Conn) string {
	var all []byte
	buf := make([]byte, 64<<10)
	for {
		conn.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
		n, err := conn.Read(buf)
		all = append(all, buf[:n]...)
		if err == io.EOF {
			return string(all) + "EOF"
		}
		if err != nil {
			return string(all)
		}
	}
}
