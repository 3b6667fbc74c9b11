package transport

import (
	"encoding/binary"
	"sync"
)

// tellEvery is how many bytes the reader takes between two pings that say so.
const tellEvery = 128 << 10

// flow keeps a writer from being too far ahead of the reader at the other end.
type flow struct {
	mu      sync.Mutex
	changed sync.Cond
	limit   uint64 // 0: none
	tells   bool   // the peer says what it takes
	taken   uint64 // as it says
	over    bool   // the connection is

	tell bool   // the peer is to know what is taken here
	told uint64 // the last time
}

// SetAhead keeps stream frames back while more than limit bytes of what was
// written have not been taken by the reader at the other end, once that Tells.
// Somebody has to read here all the time. 0 is no limit.
//
// OpenSSH's server takes what a fast link brings into a buffer that it copies
// whole for each 32 KiB that it grows, up to 2 MiB: a tenth of a second of a
// processor for each connection that has once been faster than its reader.
func (c *Conn) SetAhead(limit uint64) {
	f := &c.flow
	f.mu.Lock()
	defer f.mu.Unlock()
	f.limit = limit
	f.changed.Broadcast()
}

// Tell has ReadFrame tell the peer, by pings, what it has taken. It is for the
// goroutine that reads.
func (c *Conn) Tell() {
	c.flow.tell = true
	c.say(c.counts.in.Load())
}

// take tells what has been read, now and then.
func (c *Conn) take() {
	if in := c.counts.in.Load(); c.flow.tell && in-c.flow.told >= tellEvery {
		c.say(in)
	}
}

// say tells how much has been read. If that fails, reading shows why.
func (c *Conn) say(in uint64) {
	c.flow.told = in
	_ = c.WriteFrame(TypePing, binary.BigEndian.AppendUint64(nil, in))
}

// heard is about a ping's payload.
func (f *flow) heard(payload []byte) error {
	if len(payload) == 0 {
		return nil
	}
	if len(payload) != 8 {
		return malformed(TypePing, "%d bytes", len(payload))
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tells = true
	f.taken = max(f.taken, binary.BigEndian.Uint64(payload))
	f.changed.Broadcast()
	return nil
}

// end lets all go on: writing shows what happened.
func (f *flow) end() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.over = true
	f.changed.Broadcast()
}

// far reports whether the writer is too far ahead: of a reader that has told
// what it takes, for nobody waits for one that does not.
func (f *flow) far(sent uint64) bool {
	return f.limit > 0 && f.tells && !f.over && sent > f.taken+f.limit
}

// hold waits while the writer is too far ahead. What waits in the buffer would
// be waited for in vain.
func (c *Conn) hold() error {
	f := &c.flow
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.far(c.counts.out.Load()) {
		return nil
	}
	f.mu.Unlock()
	err := c.Flush()
	f.mu.Lock()
	for err == nil && f.far(c.counts.out.Load()) {
		f.changed.Wait()
	}
	return err
}
