// Package resp speaks RESP2, the protocol of Redis, from both ends: commands
// and replies on one raw connection.
//
// It exists because the benchmarks prove that one TCP connection lived through
// a migration. Client libraries such as go-redis pool connections and dial
// again behind the caller's back, which would hide exactly the fault that is
// looked for. Here nothing is ever reopened or retried.
//
// What arrives is hostile until checked: every length is capped before memory
// is taken for it. Source: the Redis serialization protocol specification,
// https://redis.io/docs/latest/develop/reference/protocol-spec/.
package resp

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// The limits of what is read, from servers and clients alike.
const (
	MaxLine    = 64 << 10 // bytes of one line, inline commands included
	MaxBulk    = 1 << 20  // bytes of one bulk string
	MaxArgs    = 1024     // arguments of a command, elements of an array
	MaxCommand = 4 << 20  // bytes of all arguments of a command together
	MaxReply   = 16 << 20 // bytes of all strings of a reply together
	maxDepth   = 4        // arrays within arrays
)

// ProtocolError says in what way bytes are not RESP2 or exceed a limit, in the
// words of Redis where it has some. The stream cannot be read any further.
type ProtocolError string

func (e ProtocolError) Error() string { return "protocol error: " + string(e) }

func protocolError(format string, args ...any) error {
	return ProtocolError(fmt.Sprintf(format, args...))
}

// Reader reads commands or replies from a stream.
type Reader struct {
	br *bufio.Reader
}

// NewReader returns a Reader on r.
func NewReader(r io.Reader) *Reader {
	return &Reader{br: bufio.NewReaderSize(r, MaxLine)}
}

// line reads one line without its end. The slice is valid until the next read.
// io.EOF means that the stream ended between lines.
func (r *Reader) line() ([]byte, error) {
	b, err := r.br.ReadSlice('\n')
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		return nil, protocolError("too big inline request")
	case errors.Is(err, io.EOF) && len(b) > 0:
		return nil, io.ErrUnexpectedEOF
	case err != nil:
		return nil, err
	}
	b = b[:len(b)-1]
	if len(b) > 0 && b[len(b)-1] == '\r' {
		b = b[:len(b)-1]
	}
	return b, nil
}

// within turns an end of stream inside an element into io.ErrUnexpectedEOF.
func within(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// bulk reads the n bytes of a bulk string and the line end after them. The
// caller has checked n.
func (r *Reader) bulk(n int) ([]byte, error) {
	b := make([]byte, n+2)
	if _, err := io.ReadFull(r.br, b); err != nil {
		return nil, within(err)
	}
	if b[n] != '\r' || b[n+1] != '\n' {
		return nil, protocolError("bulk string without line end")
	}
	return b[:n], nil
}

// number reads a decimal integer strictly: no plus sign, no spaces.
func number(b []byte) (int64, bool) {
	if len(b) == 0 || len(b) > 20 || b[0] == '+' {
		return 0, false
	}
	n, err := strconv.ParseInt(string(b), 10, 64)
	return n, err == nil
}
