package track

import (
	"bytes"

	"golang.org/x/sys/unix"
)

// class is what a mapping is to a tracker.
type class uint8

const (
	untracked class = iota // somebody else's: devices, shared files, the kernel's own
	anonymous              // private, of nothing
	fileCopy               // private, of a file: pages that were written are anonymous
	shared                 // of a shared memory object
)

// fileKey names a file for as long as somebody has it.
type fileKey struct{ dev, ino uint64 }

// vma is one mapping, as a line of /proc/PID/maps has it.
type vma struct {
	start, end uint64
	low, high  uint64 // where the mapping below it ends and the one above it begins
	offset     uint64
	file       fileKey
	class      class
	write      bool
	exec       bool
	memfd      bool // shared, and may be open
}

func (v *vma) private() bool { return v.class == anonymous || v.class == fileCopy }

// readAll reads a file of /proc from its beginning into buf, which grows.
func readAll(fd int, buf []byte) ([]byte, error) {
	buf = buf[:0]
	for {
		if cap(buf)-len(buf) < PageSize {
			buf = append(buf, make([]byte, 4*PageSize)...)[:len(buf)]
		}
		n, err := unix.Pread(fd, buf[len(buf):cap(buf)], int64(len(buf)))
		switch {
		case err == unix.EINTR:
		case err != nil:
			return buf, err
		case n == 0:
			return buf, nil
		default:
			buf = buf[:len(buf)+n]
		}
	}
}

// parseMaps appends the mappings of a text of /proc/PID/maps. Mappings may
// change while it is read: lines that go back are left out.
func parseMaps(text []byte, vmas []vma, classify func(v *vma, flags, name []byte) class) []vma {
	end := uint64(0)
	for len(text) > 0 {
		line := text
		if i := bytes.IndexByte(text, '\n'); i >= 0 {
			line, text = text[:i], text[i+1:]
		} else {
			text = nil
		}
		var v vma
		flags, name, ok := v.parse(line)
		if !ok || v.start < end || v.end <= v.start {
			continue
		}
		v.write, v.exec = flags[1] == 'w', flags[2] == 'x'
		v.class = classify(&v, flags, name)
		v.low, v.high = end, v.end // of the last one nothing is known
		if n := len(vmas); n > 0 {
			vmas[n-1].high = v.start
		} else {
			v.low = v.start
		}
		end = v.end
		vmas = append(vmas, v)
	}
	return vmas
}

// parse reads "start-end flags offset major:minor inode  name".
func (v *vma) parse(line []byte) (flags, name []byte, ok bool) {
	f := fields{line: line}
	v.start = f.number('-', 16)
	v.end = f.number(' ', 16)
	flags = f.word(' ')
	v.offset = f.number(' ', 16)
	major, minor := f.number(':', 16), f.number(' ', 16)
	v.file.dev = unix.Mkdev(uint32(major), uint32(minor))
	v.file.ino = f.number(' ', 10)
	return flags, bytes.TrimLeft(f.line, " "), !f.bad && len(flags) == 4
}

// fields takes a line apart.
type fields struct {
	line []byte
	bad  bool
}

func (f *fields) word(end byte) []byte {
	i := bytes.IndexByte(f.line, end)
	if i < 0 { // the last one may end with the line
		w := f.line
		f.line = nil
		return w
	}
	w := f.line[:i]
	f.line = f.line[i+1:]
	return w
}

func (f *fields) number(end byte, base uint64) uint64 {
	w, n := f.word(end), uint64(0)
	f.bad = f.bad || len(w) == 0
	for _, c := range w {
		d := uint64(c - '0')
		if c >= 'a' {
			d = uint64(c-'a') + 10
		}
		f.bad = f.bad || d >= base
		n = n*base + d
	}
	return n
}
