package kv

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/vzkit/vzkit/bench/resp"
)

// command is one entry of the command table. Arity counts the command's name;
// negative, it is a minimum, as in Redis.
type command struct {
	arity int
	run   func(s *Server, b []byte, args [][]byte) []byte
}

var commands = map[string]command{
	"ping":     {-1, ping},
	"set":      {-3, set},
	"get":      {2, get},
	"mget":     {-2, mget},
	"del":      {-2, del},
	"dbsize":   {1, dbsize},
	"flushall": {-1, flushall},
	"info":     {-1, info},
	"config":   {-2, config},
	"command":  {-1, func(_ *Server, b []byte, _ [][]byte) []byte { return resp.AppendArray(b, 0) }},
	"quit":     {-1, func(_ *Server, b []byte, _ [][]byte) []byte { return append(b, ok...) }},
}

const (
	ok          = "+OK\r\n"
	null        = "$-1\r\n"
	syntaxError = "-ERR syntax error\r\n"
)

// execute appends the reply to args to b and says whether it was QUIT.
func (s *Server) execute(b []byte, args [][]byte) (reply []byte, quit bool) {
	name := strings.ToLower(string(args[0]))
	c, known := commands[name]
	switch {
	case !known:
		return appendError(b, "unknown command '%.128s', with args beginning with: %s", args[0], beginning(args[1:])), false
	case c.arity > 0 && len(args) != c.arity, c.arity < 0 && len(args) < -c.arity:
		return wrongNumber(b, name), false
	}
	return c.run(s, b, args), name == "quit"
}

// beginning quotes the first arguments of an unknown command, up to 128 bytes.
func beginning(args [][]byte) string {
	var b strings.Builder
	for _, a := range args {
		if b.Len() >= 128 {
			break
		}
		fmt.Fprintf(&b, "'%.*s' ", 128-b.Len(), a)
	}
	return b.String()
}

var lineEnds = strings.NewReplacer("\r", " ", "\n", " ")

// appendError appends an error reply; what would end its line becomes a space.
func appendError(b []byte, format string, args ...any) []byte {
	b = append(b, "-ERR "...)
	b = append(b, lineEnds.Replace(fmt.Sprintf(format, args...))...)
	return append(b, '\r', '\n')
}

func wrongNumber(b []byte, name string) []byte {
	return appendError(b, "wrong number of arguments for '%s' command", name)
}

func ping(_ *Server, b []byte, args [][]byte) []byte {
	switch len(args) {
	case 1:
		return append(b, "+PONG\r\n"...)
	case 2:
		return resp.AppendBulk(b, args[1])
	}
	return wrongNumber(b, "ping")
}

func set(s *Server, b []byte, args [][]byte) []byte {
	switch {
	case len(args) > 3:
		return append(b, syntaxError...)
	case !s.store.set(args[1], args[2]):
		return append(b, "-OOM command not allowed when used memory > 'maxmemory'.\r\n"...)
	}
	return append(b, ok...)
}

func get(s *Server, b []byte, args [][]byte) []byte {
	value := s.store.get(args[1])
	if value == nil {
		return append(b, null...)
	}
	return resp.AppendBulk(b, value)
}

// mget refuses a reply that its client could not read.
func mget(s *Server, b []byte, args [][]byte) []byte {
	start := len(b)
	b = resp.AppendArray(b, len(args)-1)
	for i := range args[1:] {
		b = get(s, b, args[i:i+2])
		if len(b)-start > resp.MaxCommand {
			return appendError(b[:start], "reply exceeds %d bytes, ask for fewer keys", resp.MaxCommand)
		}
	}
	return b
}

func del(s *Server, b []byte, args [][]byte) []byte {
	return resp.AppendInt(b, s.store.del(args[1:]))
}

func dbsize(s *Server, b []byte, _ [][]byte) []byte {
	keys, _ := s.store.size()
	return resp.AppendInt(b, int64(keys))
}

func flushall(s *Server, b []byte, args [][]byte) []byte {
	if len(args) > 2 || len(args) == 2 && !isWord(args[1], "sync") && !isWord(args[1], "async") {
		return append(b, syntaxError...)
	}
	s.store.clear()
	return append(b, ok...)
}

func isWord(arg []byte, word string) bool { return bytes.EqualFold(arg, []byte(word)) }

func info(s *Server, b []byte, _ [][]byte) []byte {
	keys, used := s.store.size()
	text := strings.Join([]string{
		"# Server", "server_name:vzbench", "process_id:" + strconv.Itoa(os.Getpid()),
		"# Clients", "connected_clients:" + strconv.FormatInt(s.clients.Load(), 10),
		"# Memory", "used_memory:" + strconv.FormatInt(used, 10),
		"maxmemory:" + strconv.FormatInt(s.store.max, 10),
		"# Keyspace", fmt.Sprintf("db0:keys=%d,expires=0,avg_ttl=0", keys), "",
	}, "\r\n")
	return resp.AppendBulk(b, text)
}

// config answers CONFIG GET with nothing: there is nothing to configure.
func config(_ *Server, b []byte, args [][]byte) []byte {
	switch {
	case !isWord(args[1], "get"):
		return appendError(b, "unknown subcommand '%.128s', only CONFIG GET is known", args[1])
	case len(args) < 3:
		return wrongNumber(b, "config|get")
	}
	return resp.AppendArray(b, 0)
}
