package treecheck

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"

	"golang.org/x/sys/unix"
)

// chunkSize is what one Chunk covers, aligned.
const chunkSize = 64 << 10

var zeros [chunkSize]byte

// content reads the data of a file: holes are not read, and zeros leave no
// trace in Chunks, so that these are the same however the zeros are stored.
func (r *reader) content(e *Entry, fd int) error {
	for at := int64(0); ; {
		x, err := nextData(fd, at)
		if errors.Is(err, unix.ENXIO) {
			return r.chunks(e, fd)
		}
		if err != nil {
			return err
		}
		e.Data = append(e.Data, x)
		at = x.End
	}
}

func nextData(fd int, at int64) (x Extent, err error) {
	if x.Start, err = unix.Seek(fd, at, unix.SEEK_DATA); err != nil {
		return x, err
	}
	x.End, err = unix.Seek(fd, x.Start, unix.SEEK_HOLE)
	return x, err
}

func (r *reader) chunks(e *Entry, fd int) error {
	next := int64(0)
	for _, x := range e.Data {
		at := max(next, x.Start/chunkSize*chunkSize)
		for ; at < x.End; at += chunkSize {
			n, err := preadFull(fd, r.buf, at)
			if err != nil {
				return err
			}
			if b := r.buf[:n]; !bytes.Equal(b, zeros[:n]) {
				sum := sha256.Sum256(b)
				e.Chunks = append(e.Chunks, Chunk{at, [16]byte(sum[:16])})
			}
		}
		next = at
	}
	return nil
}

// preadFull reads up to the end of b or of the file.
func preadFull(fd int, b []byte, at int64) (n int, err error) {
	for n < len(b) {
		m, err := unix.Pread(fd, b[n:], at+int64(n))
		if err != nil {
			return n, err
		}
		if m == 0 {
			break
		}
		n += m
	}
	if n == 0 {
		return 0, io.ErrUnexpectedEOF // data where there is none
	}
	return n, nil
}
