package delta

import "github.com/zeebo/xxh3"

// patience is how many strong sums may fail within the length of a block.
const patience = 4

// matcher splits one segment at a time.
type matcher struct {
	sig   *Signature
	hash  func([]byte) strong
	index *index
	seed  uint64
	ends  int64 // the shift that lays the ends of both files over each other

	*segment
	pieces []piece
	pos    int   // all before is decided, or looked at in vain
	end    int   // of the last piece
	shift  int64 // from an offset in the new file to that in the old, latest
	next   int   // the first of data that ends behind pos

	strong    strong // of the length bytes at strongAt
	strongAt  int
	length    int
	rolled    uint64 // the sum of the window at rolledAt
	rolledAt  int
	failed    int // strong sums before quota
	quota     int
	deafUntil int // weak sums do not count before
}

// piece is a copy; offsets in the new file are relative to the segment.
type piece struct {
	at, end int
	from    int64
}

func newMatcher(s *Signature, seed uint64, size int64) *matcher {
	m := &matcher{sig: s, seed: seed, ends: s.size - size}
	if s.blocks > 0 {
		m.hash, m.index = s.strongOf, s.index()
	}
	return m
}

func (m *matcher) match(s *segment) {
	*m = matcher{
		sig: m.sig, hash: m.hash, index: m.index, seed: m.seed, ends: m.ends,
		segment: s, pieces: m.pieces[:0], strongAt: -1, rolledAt: -1,
	}
	for m.sig.blocks > 0 && m.skipHole() {
		if !m.expected() && !m.ahead() {
			m.roll()
		}
	}
	m.finish()
}

// skipHole moves on to where data is, or to the block of the same offset in
// which it begins. It reports whether anything is left.
func (m *matcher) skipHole() bool {
	for m.next < len(m.data) && m.data[m.next].end <= m.at+int64(m.pos) {
		m.next++
	}
	if m.next == len(m.data) {
		return false
	}
	start := m.data[m.next].start
	if start > m.at+int64(m.pos) {
		m.pos = max(m.pos, int(start/m.sig.block*m.sig.block-m.at))
	}
	return m.pos < m.own
}

// shifts are where a block is expected: after the last match, at the same
// offset, at the same distance from the end.
func (m *matcher) shifts() [3]int64 { return [3]int64{m.shift, 0, m.ends} }

// block is the one that begins at pos if the shift is right, or -1.
func (m *matcher) block(pos int, shift int64) int {
	from := m.at + int64(pos) + shift
	if from < 0 || from >= m.sig.size || from&(m.sig.block-1) != 0 {
		return -1
	}
	return int(from / m.sig.block)
}

// expected takes a block that is where it is expected.
func (m *matcher) expected() bool {
	for _, shift := range m.shifts() {
		if i := m.block(m.pos, shift); i >= 0 && m.same(m.pos, i) {
			m.take(m.pos, i)
			return true
		}
	}
	return false
}

// ahead takes the block after the one that should have come after a match: most
// changes are in place.
func (m *matcher) ahead() bool {
	pos := m.pos + int(m.sig.block)
	if m.pos > m.end || pos >= m.own {
		return false
	}
	i := m.block(pos, m.shift)
	if i < 0 || !m.same(pos, i) {
		return false
	}
	m.take(pos, i)
	return true
}

// roll looks for a block by its weak sum, up to where one is expected.
func (m *matcher) roll() {
	stop := m.stop()
	if m.pos < m.deafUntil {
		m.pos = min(stop, m.deafUntil)
		return
	}
	limit := min(stop, len(m.bytes)-window)
	pos := m.pos
	m.pos = stop
	if pos >= limit {
		return
	}
	if m.rolledAt != pos {
		m.rolled = rolling(m.bytes[pos:])
	}
	for {
		m.rolled, pos = m.index.scan(m.bytes, m.rolled, pos, limit)
		if pos == limit {
			m.rolledAt = limit
			return
		}
		if m.candidate(pos) {
			return
		}
		if pos+1 < m.deafUntil {
			m.pos = min(stop, m.deafUntil)
			return
		}
		m.rolled = m.rolled*factor + entering[m.bytes[pos+window]] - leaving[m.bytes[pos]]
		pos++
	}
}

// stop is the next place after pos where a block is expected, or the end of the
// segment.
func (m *matcher) stop() int {
	stop := int64(m.own)
	for _, shift := range m.shifts() {
		from := m.at + int64(m.pos) + shift
		stop = min(stop, int64(m.pos)+m.sig.block-from&(m.sig.block-1))
	}
	return int(stop)
}

// candidate takes a block that begins at pos, if there is one with this weak
// sum, with those before it that weak sums do not show.
func (m *matcher) candidate(pos int) bool {
	var room [alike]int
	found := m.index.find(weak(m.rolled), room[:0])
	for _, i := range found {
		if !m.same(pos, i) {
			continue
		}
		block, first := int(m.sig.block), i
		for first > 0 && pos-block >= m.end && m.same(pos-block, first-1) {
			first, pos = first-1, pos-block
		}
		for ; first <= i; first, pos = first+1, pos+block {
			m.take(pos, first)
		}
		return true
	}
	if len(found) > 0 {
		m.fail(pos)
	}
	return false
}

// fail counts, and gives up for the rest of the length of a block if that was
// too often.
func (m *matcher) fail(pos int) {
	if pos >= m.quota {
		m.quota, m.failed = pos+int(m.sig.block), 0
	}
	if m.failed++; m.failed == patience {
		m.deafUntil = m.quota
	}
}

// same reports whether the bytes at pos are those of block i.
func (m *matcher) same(pos, i int) bool {
	n := m.sig.length(i)
	if pos+n > len(m.bytes) {
		return false
	}
	if m.strongAt != pos || m.length != n {
		m.strong = m.hash(m.bytes[pos:][:n])
		m.strongAt, m.length = pos, n
	}
	return m.strong == m.sig.strong(i)
}

// take makes the bytes at pos a copy of block i.
func (m *matcher) take(pos, i int) {
	p := piece{pos, pos + m.sig.length(i), int64(i) * m.sig.block}
	m.shift = p.from - m.at - int64(pos)
	m.pos, m.end = p.end, p.end
	if n := len(m.pieces); n > 0 && m.pieces[n-1].follows(p) {
		m.pieces[n-1].end = p.end
		return
	}
	m.pieces = append(m.pieces, p)
}

// follows reports whether next goes on where p ends, in both files.
func (p piece) follows(next piece) bool {
	return p.end == next.at && p.from+int64(p.end-p.at) == next.from
}

// finish makes runs of the pieces and of what is between them.
func (m *matcher) finish() {
	m.next = 0
	last := 0
	for _, p := range m.pieces {
		m.fresh(last, p.at)
		m.within(p.at, p.end, maxCopy, func(at, end int) {
			m.runs = append(m.runs, Run{
				Offset: m.at + int64(at), Length: int64(end - at), From: p.from + int64(at-p.at),
				Sum: xxh3.HashSeed(m.bytes[at:end], m.seed), Data: m.bytes[at:end],
			})
		})
		last = p.end
	}
	m.fresh(last, m.own)
}

// fresh makes runs of new data.
func (m *matcher) fresh(at, end int) {
	m.within(at, end, maxData, func(at, end int) {
		m.runs = append(m.runs, Run{
			Offset: m.at + int64(at), Length: int64(end - at), From: -1, Data: m.bytes[at:end],
		})
	})
}

// within calls f for the parts of at to end that are data, cut to most bytes.
func (m *matcher) within(at, end, most int, f func(at, end int)) {
	for ; m.next < len(m.data); m.next++ {
		x := m.data[m.next]
		stop := min(end, int(x.end-m.at))
		for at = max(at, int(x.start-m.at)); at < stop; {
			cut := min(stop, at+most)
			f(at, cut)
			at = cut
		}
		if x.end-m.at > int64(end) {
			return
		}
	}
}
