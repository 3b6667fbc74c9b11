package ledger

import (
	"encoding/binary"
	"strconv"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/vzkit/vzkit/bench/resp"
)

// journal knows what every record of a run contains and when it is due.
// Records are numbered from 1.
type journal struct {
	name     string
	start    time.Time
	interval time.Duration
}

// due is when record n should be sent.
func (j journal) due(n uint64) time.Time {
	return j.start.Add(time.Duration(n-1) * j.interval)
}

func (j journal) appendKey(b []byte, n uint64) []byte {
	b = append(b, "ledger:"...)
	b = append(b, j.name...)
	b = append(b, ':')
	return strconv.AppendUint(b, n, 10)
}

// appendValue appends the content of record n: run, number, due time in
// nanoseconds since 1970, and the xxhash of these in hexadecimal.
func (j journal) appendValue(b []byte, n uint64) []byte {
	from := len(b)
	b = append(b, j.name...)
	b = append(b, ' ')
	b = strconv.AppendUint(b, n, 10)
	b = append(b, ' ')
	b = strconv.AppendInt(b, j.due(n).UnixNano(), 10)
	b = append(b, ' ')
	return strconv.AppendUint(b, xxhash.Sum64(b[from:]), 16)
}

// every is how often a record is followed by reading an older one.
const every = 16

// older is the record that is read back after record n beside n itself, chosen
// evenly among all before it; 0 for none.
func older(n uint64) uint64 {
	if n%every != 0 {
		return 0
	}
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], n)
	return 1 + xxhash.Sum64(b[:])%(n-1)
}

// appendRequests appends everything that is sent for record n: it is set, read
// back, and an older one is read.
func (j journal) appendRequests(b []byte, n uint64) []byte {
	key := j.appendKey(make([]byte, 0, 128), n)
	b = resp.AppendCommand(b, []byte("SET"), key, j.appendValue(make([]byte, 0, 256), n))
	b = resp.AppendCommand(b, []byte("GET"), key)
	if o := older(n); o != 0 {
		b = j.appendGet(b, o)
	}
	return b
}

func (j journal) appendGet(b []byte, n uint64) []byte {
	return resp.AppendCommand(b, []byte("GET"), j.appendKey(make([]byte, 0, 128), n))
}

// holds says whether a reply to GET has exactly the content of record n.
func (j journal) holds(n uint64, r resp.Reply) bool {
	var b [256]byte
	return r.Kind == resp.Bulk && !r.Null && string(r.Text) == string(j.appendValue(b[:0], n))
}
