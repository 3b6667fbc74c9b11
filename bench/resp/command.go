package resp

import (
	"bytes"
	"strconv"
)

// AppendCommand appends the command args to b as an array of bulk strings.
func AppendCommand[T string | []byte](b []byte, args ...T) []byte {
	b = appendLength(b, '*', len(args))
	for _, a := range args {
		b = AppendBulk(b, a)
	}
	return b
}

// AppendBulk appends the bulk string s to b.
func AppendBulk[T string | []byte](b []byte, s T) []byte {
	b = appendLength(b, '$', len(s))
	b = append(b, s...)
	return append(b, '\r', '\n')
}

// AppendInt appends the integer reply n to b.
func AppendInt(b []byte, n int64) []byte {
	b = append(b, ':')
	b = strconv.AppendInt(b, n, 10)
	return append(b, '\r', '\n')
}

// AppendArray appends the head of an array of n elements to b.
func AppendArray(b []byte, n int) []byte { return appendLength(b, '*', n) }

func appendLength(b []byte, kind byte, n int) []byte {
	b = append(b, kind)
	b = strconv.AppendInt(b, int64(n), 10)
	return append(b, '\r', '\n')
}

// ReadCommand reads the next command, sent as an array of bulk strings or
// inline as words on a line. Empty commands are passed over, as Redis does.
// The result has at least one element. io.EOF means that the stream ended
// between commands; a malformed one gives a ProtocolError.
func (r *Reader) ReadCommand() ([][]byte, error) {
	for {
		line, err := r.line()
		if err != nil {
			return nil, err
		}
		var args [][]byte
		if len(line) > 0 && line[0] == '*' {
			args, err = r.arguments(line[1:])
		} else {
			args, err = inline(line)
		}
		if err != nil || len(args) > 0 {
			return args, err
		}
	}
}

// arguments reads the arguments that follow an array head with count.
func (r *Reader) arguments(count []byte) ([][]byte, error) {
	n, ok := number(count)
	if !ok || n > MaxArgs {
		return nil, protocolError("invalid multibulk length")
	}
	var args [][]byte
	left := MaxCommand
	for range n {
		arg, err := r.argument(left)
		if err != nil {
			return nil, within(err)
		}
		left -= len(arg)
		args = append(args, arg)
	}
	return args, nil
}

// argument reads one bulk string of at most left bytes.
func (r *Reader) argument(left int) ([]byte, error) {
	line, err := r.line()
	if err != nil {
		return nil, err
	}
	if len(line) == 0 || line[0] != '$' {
		return nil, protocolError("expected '$', got '%s'", firstByte(line))
	}
	n, ok := number(line[1:])
	if !ok || n < 0 || n > MaxBulk || n > int64(left) {
		return nil, protocolError("invalid bulk length")
	}
	return r.bulk(int(n))
}

// firstByte is the first byte of line fit for an error message.
func firstByte(line []byte) string {
	if len(line) == 0 || line[0] < ' ' || line[0] > '~' {
		return " "
	}
	return string(line[:1])
}

// inline splits a line into words. Quoting is not supported and is refused, so
// that no quote becomes part of a key by accident.
func inline(line []byte) ([][]byte, error) {
	if bytes.ContainsAny(line, `"'`) {
		return nil, protocolError("quotes in inline request are not supported")
	}
	words := bytes.Fields(line)
	if len(words) > MaxArgs {
		return nil, protocolError("invalid multibulk length")
	}
	for i := range words {
		words[i] = bytes.Clone(words[i])
	}
	return words, nil
}
