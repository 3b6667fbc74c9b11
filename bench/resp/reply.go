package resp

import "fmt"

// Kind is the first byte of a reply on the wire.
type Kind byte

// The kinds of replies in RESP2.
const (
	Simple  Kind = '+' // a short string, such as OK
	Error   Kind = '-' // an error message
	Integer Kind = ':'
	Bulk    Kind = '$' // a string, or null
	Array   Kind = '*' // replies, or null
)

// Reply is one reply of a server.
type Reply struct {
	Kind  Kind
	Text  []byte  // of Simple, Error and Bulk
	Int   int64   // of Integer
	Elems []Reply // of Array
	Null  bool    // a Bulk or Array that is absent, not empty
}

// ServerError is an error reply: the server is well and says no.
type ServerError string

func (e ServerError) Error() string { return fmt.Sprintf("server answered %q", string(e)) }

// Err returns the ServerError if r is an error reply, else nil.
func (r Reply) Err() error {
	if r.Kind == Error {
		return ServerError(r.Text)
	}
	return nil
}

// ReadReply reads the next reply. io.EOF means that the stream ended between
// replies; a malformed or oversized one gives a
// ProtocolError. An error reply is a Reply, not an error.
func (r *Reader) ReadReply() (Reply, error) {
	left := MaxReply
	return r.reply(&left, 0)
}

func (r *Reader) reply(left *int, depth int) (Reply, error) {
	line, err := r.line()
	if err != nil {
		return Reply{}, err
	}
	if len(line) == 0 {
		return Reply{}, protocolError("empty reply")
	}
	kind, rest := Kind(line[0]), line[1:]
	switch kind {
	case Simple, Error:
		return r.text(kind, rest, left)
	case Integer:
		n, ok := number(rest)
		if !ok {
			return Reply{}, protocolError("invalid integer")
		}
		return Reply{Kind: kind, Int: n}, nil
	case Bulk:
		return r.bulkReply(rest, left)
	case Array:
		return r.array(rest, left, depth)
	}
	return Reply{}, protocolError("unknown reply type %q", line[0])
}

// take subtracts n from what a reply may still cost.
func take(left *int, n int64) bool {
	if n > int64(*left) {
		return false
	}
	*left -= int(n)
	return true
}

func (r *Reader) text(kind Kind, text []byte, left *int) (Reply, error) {
	if !take(left, int64(len(text))) {
		return Reply{}, protocolError("reply too big")
	}
	return Reply{Kind: kind, Text: append([]byte{}, text...)}, nil
}

func (r *Reader) bulkReply(length []byte, left *int) (Reply, error) {
	n, ok := number(length)
	if ok && n == -1 {
		return Reply{Kind: Bulk, Null: true}, nil
	}
	if !ok || n < 0 || n > MaxBulk || !take(left, n) {
		return Reply{}, protocolError("invalid bulk length")
	}
	text, err := r.bulk(int(n))
	return Reply{Kind: Bulk, Text: text}, err
}

func (r *Reader) array(length []byte, left *int, depth int) (Reply, error) {
	n, ok := number(length)
	if ok && n == -1 {
		return Reply{Kind: Array, Null: true}, nil
	}
	// Each element costs a little even when it is empty, so that nested
	// arrays of nothing run into MaxReply as well.
	const perElement = 64
	if !ok || n < 0 || n > MaxArgs || depth == maxDepth || !take(left, n*perElement) {
		return Reply{}, protocolError("invalid multibulk length")
	}
	reply := Reply{Kind: Array}
	for range n {
		elem, err := r.reply(left, depth+1)
		if err != nil {
			return Reply{}, within(err)
		}
		reply.Elems = append(reply.Elems, elem)
	}
	return reply, nil
}
