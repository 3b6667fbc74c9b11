package resp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func words(args [][]byte) string { return string(bytes.Join(args, []byte("|"))) }

func TestReadCommand(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n", "GET|k"},
		{"*1\r\n$0\r\n\r\n", ""},
		{"PING\r\n", "PING"},
		{"set  a\tb\n", "set|a|b"},
		{"\r\n*0\r\n*-1\r\n  \r\nPING\r\n", "PING"},
		{"*2\r\n$4\r\na\r\nb\r\n$1\r\n\x00\r\n", "a\r\nb|\x00"},
	} {
		args, err := NewReader(strings.NewReader(c.in)).ReadCommand()
		if err != nil || words(args) != c.want {
			t.Errorf("%q: %q, %v", c.in, words(args), err)
		}
	}
}

func TestReadCommandRefuses(t *testing.T) {
	big := fmt.Sprintf("$%d\r\n%s\r\n", MaxBulk, strings.Repeat("x", MaxBulk))
	for name, in := range map[string]string{
		"bulk over limit":     "*1\r\n$1048577\r\n",
		"negative bulk":       "*1\r\n$-1\r\n",
		"signed bulk":         "*1\r\n$+1\r\nx\r\n",
		"too many arguments":  "*1025\r\n",
		"count over int64":    "*99999999999999999999\r\n",
		"count not a number":  "*a\r\n",
		"no dollar":           "*1\r\n:1\r\n",
		"empty header":        "*1\r\n\r\n",
		"bulk without end":    "*1\r\n$1\r\nabc\r\n",
		"long line":           strings.Repeat("x", MaxLine+1),
		"quotes":              "SET a \"b c\"\r\n",
		"too many words":      strings.Repeat("x ", MaxArgs+1) + "\r\n",
		"arguments too large": "*5\r\n" + strings.Repeat(big, 5),
	} {
		_, err := NewReader(strings.NewReader(in)).ReadCommand()
		if !isProtocolError(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func isProtocolError(err error) bool {
	var p ProtocolError
	return errors.As(err, &p)
}

func TestReadReply(t *testing.T) {
	for _, c := range []struct {
		in   string
		want Reply
	}{
		{"+OK\r\n", Reply{Kind: Simple, Text: []byte("OK")}},
		{"-ERR no\r\n", Reply{Kind: Error, Text: []byte("ERR no")}},
		{":-42\r\n", Reply{Kind: Integer, Int: -42}},
		{"$0\r\n\r\n", Reply{Kind: Bulk, Text: []byte{}}},
		{"$-1\r\n", Reply{Kind: Bulk, Null: true}},
		{"*-1\r\n", Reply{Kind: Array, Null: true}},
		{"*2\r\n:1\r\n*1\r\n$1\r\na\r\n", Reply{Kind: Array, Elems: []Reply{
			{Kind: Integer, Int: 1},
			{Kind: Array, Elems: []Reply{{Kind: Bulk, Text: []byte("a")}}},
		}}},
	} {
		got, err := NewReader(strings.NewReader(c.in)).ReadReply()
		if diff := cmp.Diff(c.want, got); err != nil || diff != "" {
			t.Errorf("%q: %v %s", c.in, err, diff)
		}
	}
}

func TestReadReplyRefuses(t *testing.T) {
	bulk := fmt.Sprintf("$%d\r\n%s\r\n", MaxBulk, strings.Repeat("x", MaxBulk))
	for name, in := range map[string]string{
		"unknown type":    "%1\r\n",
		"empty line":      "\r\n",
		"integer":         ":1x\r\n",
		"bulk over limit": "$1048577\r\n",
		"negative bulk":   "$-2\r\n",
		"elements":        "*1025\r\n",
		"nesting":         strings.Repeat("*1\r\n", 6) + ":1\r\n",
		"nested nothing":  "*1024\r\n" + strings.Repeat("*1024\r\n"+strings.Repeat("*0\r\n", 1024), 1024),
		"total":           "*17\r\n" + strings.Repeat(bulk, 17),
	} {
		_, err := NewReader(strings.NewReader(in)).ReadReply()
		if !isProtocolError(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Every prefix of a command or reply is a truncation, except the empty one.
func TestCutAtEveryByte(t *testing.T) {
	whole := "*2\r\n$3\r\nGET\r\n$2\r\nab\r\n"
	for i := range len(whole) {
		want := io.ErrUnexpectedEOF
		if i == 0 {
			want = io.EOF
		}
		if _, err := NewReader(strings.NewReader(whole[:i])).ReadCommand(); err != want {
			t.Errorf("command cut at %d: %v", i, err)
		}
		if _, err := NewReader(strings.NewReader(whole[:i])).ReadReply(); err != want {
			t.Errorf("reply cut at %d: %v", i, err)
		}
	}
}

func TestDo(t *testing.T) {
	here, there := net.Pipe()
	defer here.Close()
	go func() {
		r := NewReader(there)
		for _, answer := range []string{"+PONG\r\n", "-ERR no\r\n"} {
			r.ReadCommand()
			io.WriteString(there, answer)
		}
		r.ReadCommand()
		there.Close()
	}()
	c := NewClient(here)
	if r, err := c.Do("PING"); err != nil || string(r.Text) != "PONG" {
		t.Errorf("PING: %q, %v", r.Text, err)
	}
	if _, err := c.Do("NO"); !errors.Is(err, ServerError("ERR no")) {
		t.Errorf("error reply: %v", err)
	}
	if _, err := c.Do("PING"); err != io.ErrUnexpectedEOF {
		t.Errorf("closed: %v", err)
	}
}

func TestPipelineEndsWithContext(t *testing.T) {
	here, there := net.Pipe()
	defer here.Close()
	defer there.Close()
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		NewReader(there).ReadCommand() // and never answers
		cancel()
		io.Copy(io.Discard, there)
	}()
	ping := func(b []byte, _ uint64) []byte { return AppendCommand(b, "PING") }
	err := NewClient(here).Pipeline(ctx, 10, time.Minute, ping, func(uint64, Reply) error { return nil })
	if err == nil {
		t.Error("a pipeline without answers succeeded")
	}
}

func FuzzReadCommand(f *testing.F) {
	for _, s := range []string{"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n", "PING\r\n", "*1\r\n$-1\r\n", "*0\r\n\r\nX\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		r := NewReader(bytes.NewReader(in))
		for {
			args, err := r.ReadCommand()
			if err != nil {
				return
			}
			again, err := NewReader(bytes.NewReader(AppendCommand(nil, args...))).ReadCommand()
			if err != nil || words(again) != words(args) {
				t.Fatalf("%q became %q, %v", args, again, err)
			}
		}
	})
}

func FuzzReadReply(f *testing.F) {
	for _, s := range []string{"+OK\r\n", "-ERR\r\n", ":1\r\n", "$1\r\na\r\n", "*2\r\n$-1\r\n*0\r\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		r := NewReader(bytes.NewReader(in))
		for {
			reply, err := r.ReadReply()
			if err != nil {
				return
			}
			if size := cost(reply); size > len(in) {
				t.Fatalf("%d bytes of text out of %d", size, len(in))
			}
		}
	})
}

func cost(r Reply) int {
	n := len(r.Text)
	for _, e := range r.Elems {
		n += cost(e)
	}
	return n
}
