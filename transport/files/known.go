package files

import (
	"encoding/binary"
	"hash/maphash"
	"strings"

	"github.com/vzkit/vzkit/transport"
	"github.com/zeebo/blake3"
)

// Limits of what is kept of a base; the rest of it is not used.
const (
	maxKnown      = 1 << 21
	maxKnownNames = 96 << 20 // bytes of names and of directories
)

// sumContent is the sum by which the content of a file of the base is found.
func sumContent(b []byte) (sum [16]byte) {
	all := blake3.Sum256(b)
	copy(sum[:], all[:])
	return sum
}

// knownFile is one file of the base. Its name is in Known.names.
type knownFile struct {
	sum  [16]byte
	size int64
	dir  uint32
	name uint32
}

// Known is what the receiver's base has, as its base-files frames told: some 70
// bytes for each file. Any number of goroutines may ask, none while another adds.
type Known struct {
	seed   maphash.Seed
	files  chunks[knownFile]
	dirs   []string
	names  []byte // each after its length in one byte
	paths  int    // bytes of dirs
	byDir  map[string]uint32
	bySum  slots
	byPath slots
}

// NewKnown knows nothing yet.
func NewKnown() *Known {
	return &Known{seed: maphash.MakeSeed(), byDir: make(map[string]uint32)}
}

// Add takes the payload of a base-files frame in, of which it keeps nothing. Of
// two files at one path the first counts. Errors: fault.Protocol.
func (k *Known) Add(payload []byte) error {
	c := &cursor{rest: payload}
	path := string(c.bytes(c.number(2)))
	if _, err := splitPath(path); err != nil {
		return err
	}
	dir, room := k.directory(path)
	for !c.short && len(c.rest) > 0 {
		f, name := knownFile{dir: dir}, c.bytes(c.number(1))
		f.size = int64(c.number(8))
		copy(f.sum[:], c.bytes(16))
		if !nameAllowed(name) || f.size <= 0 || f.size > maxSize {
			c.short = true
		}
		if !c.short && room {
			k.add(f, name)
		}
	}
	if c.short {
		return hostile("malformed frame %v of %d bytes", transport.TypeBaseFiles, len(payload))
	}
	return nil
}

func nameAllowed(b []byte) bool {
	parts, err := splitPath(string(b))
	return err == nil && len(parts) == 1
}

// directory is the number of a directory, if there is room for it.
func (k *Known) directory(path string) (n uint32, room bool) {
	if n, found := k.byDir[path]; found {
		return n, true
	}
	// What a map and a string cost is counted too.
	if k.paths+len(path)+64 > maxKnownNames {
		return 0, false
	}
	n = uint32(len(k.dirs))
	k.dirs = append(k.dirs, path)
	k.byDir[path] = n
	k.paths += len(path) + 64
	return n, true
}

func (k *Known) add(f knownFile, name []byte) {
	if k.files.len() == maxKnown || k.paths+len(k.names)+len(name) >= maxKnownNames {
		return
	}
	if _, twice := k.find(f.dir, string(name)); twice {
		return
	}
	f.name = uint32(len(k.names))
	k.names = append(append(k.names, uint8(len(name))), name...)
	n := uint32(k.files.len())
	k.files.add(f)
	k.byPath.add(n, k.hashPath)
	if _, twice := k.Find(f.size, f.sum); !twice && f.sum != [16]byte{} {
		k.bySum.add(n, k.hashSum)
	}
}

// Len is the number of files that are kept.
func (k *Known) Len() int { return k.files.len() }

// Find returns the path of a file with this size and content.
func (k *Known) Find(size int64, sum [16]byte) (path string, ok bool) {
	n, ok := k.bySum.find(k.hashContent(size, sum), func(n uint32) bool {
		f := k.files.at(n)
		return f.sum == sum && f.size == size
	})
	if !ok {
		return "", false
	}
	f := k.files.at(n)
	return joined(k.dirs[f.dir], k.name(f)), true
}

// At returns the size of the file at path.
func (k *Known) At(path string) (size int64, ok bool) {
	dir, name := "", path
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		dir, name = path[:i], path[i+1:]
	}
	d, ok := k.byDir[dir]
	if !ok {
		return 0, false
	}
	n, ok := k.find(d, name)
	if !ok {
		return 0, false
	}
	return k.files.at(n).size, true
}

func (k *Known) find(dir uint32, name string) (uint32, bool) {
	return k.byPath.find(k.hashName(dir, name), func(n uint32) bool {
		f := k.files.at(n)
		return f.dir == dir && k.name(f) == name
	})
}

// name is valid for as long as k is.
func (k *Known) name(f *knownFile) string {
	n := int(k.names[f.name])
	return string(k.names[f.name+1:][:n])
}

func (k *Known) hashPath(n uint32) uint64 {
	f := k.files.at(n)
	return k.hashName(f.dir, k.name(f))
}

func (k *Known) hashSum(n uint32) uint64 {
	f := k.files.at(n)
	return k.hashContent(f.size, f.sum)
}

func (k *Known) hashName(dir uint32, name string) uint64 {
	b := append(binary.BigEndian.AppendUint32(make([]byte, 0, 4+maxName), dir), name...)
	return maphash.Bytes(k.seed, b)
}

func (k *Known) hashContent(size int64, sum [16]byte) uint64 {
	b := binary.BigEndian.AppendUint64(make([]byte, 0, 24), uint64(size))
	return maphash.Bytes(k.seed, append(b, sum[:]...))
}

// chunks is a slice that grows without being copied.
type chunks[T any] struct {
	full [][]T
	n    int
}

const chunkLen = 1 << 14

func (c *chunks[T]) len() int { return c.n }

func (c *chunks[T]) at(i uint32) *T { return &c.full[i/chunkLen][i%chunkLen] }

func (c *chunks[T]) add(v T) {
	if c.n%chunkLen == 0 {
		c.full = append(c.full, make([]T, 0, chunkLen))
	}
	last := len(c.full) - 1
	c.full[last] = append(c.full[last], v)
	c.n++
}

// slots is a hash table of numbers, with open addressing and linear probing.
type slots struct {
	table []uint32 // number + 1
	n     int
}

// add takes a number that is not there; hash is that of any number.
func (s *slots) add(n uint32, hash func(uint32) uint64) {
	if s.n >= len(s.table)*3/4 {
		old := s.table
		s.table = make([]uint32, max(64, 2*len(old)))
		for _, o := range old {
			if o != 0 {
				s.put(o, hash(o-1))
			}
		}
	}
	s.put(n+1, hash(n))
	s.n++
}

func (s *slots) put(v uint32, hash uint64) {
	at := hash & uint64(len(s.table)-1)
	for s.table[at] != 0 {
		at = (at + 1) & uint64(len(s.table)-1)
	}
	s.table[at] = v
}

func (s *slots) find(hash uint64, is func(uint32) bool) (uint32, bool) {
	if len(s.table) == 0 {
		return 0, false
	}
	mask := uint64(len(s.table) - 1)
	for at := hash & mask; s.table[at] != 0; at = (at + 1) & mask {
		if n := s.table[at] - 1; is(n) {
			return n, true
		}
	}
	return 0, false
}
