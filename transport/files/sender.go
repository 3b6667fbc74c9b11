package files

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"

	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/transport"
	"golang.org/x/sys/unix"
)

// runSize bounds the bytes in one file-data frame.
const runSize = 256 << 10

// buffers are kept from pass to pass.
type buffers struct {
	frame  []byte // a file-entry frame
	bulk   []byte // content
	xattrs *xattrIO
}

func newBuffers() *buffers {
	return &buffers{bulk: make([]byte, runSize), xattrs: newXattrIO()}
}

// sender puts the frames of one pass on the wire.
type sender struct {
	ctx context.Context
	w   FrameWriter
	PassOptions
	*buffers
	stats Stats
}

func (s *sender) begin() error {
	return s.writeJSON(transport.TypeFilesBegin, passBegin{s.Pass, s.Frozen})
}

func (s *sender) end() error {
	if err := s.writeJSON(transport.TypeFilesEnd, s.stats.end()); err != nil {
		return err
	}
	return fault.Wrap(fault.Copy, s.w.Flush())
}

func (s *sender) writeJSON(t transport.Type, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return s.write(t, b)
}

func (s *sender) write(t transport.Type, parts ...[]byte) error {
	if err := s.w.WriteFrame(t, parts...); err != nil {
		return fault.Wrap(fault.Copy, err)
	}
	if s.Progress != nil {
		s.Progress(s.stats)
	}
	return nil
}

func (s *sender) delete(path string) error {
	s.stats.Deleted++
	return s.write(transport.TypeFileDelete, []byte(path))
}

func (s *sender) link(path, target string) error {
	return s.entry(&entry{path: path, link: true, target: target})
}

func (s *sender) entry(e *entry) error {
	if err := e.check(); err != nil {
		return fault.New(fault.Copy, "%v", err).
			WithHint("Its size or its extended attributes are beyond what can be sent; make them smaller.")
	}
	s.stats.Sent++
	s.frame = e.append(s.frame[:0])
	return s.write(transport.TypeFileEntry, s.frame)
}

// object sends name in the directory at the end of the trail as st shows it,
// path is its path. An error without a path means that nothing was sent.
func (s *sender) object(at *trail, name, path string, st *unix.Stat_t) error {
	dir, err := at.fd()
	if err != nil {
		return err
	}
	e := &entry{
		path: path, mode: st.Mode, uid: st.Uid, gid: st.Gid,
		atime: st.Atim, mtime: st.Mtim,
	}
	switch {
	case e.regular():
		e.size = st.Size
	case e.device():
		e.major, e.minor = unix.Major(st.Rdev), unix.Minor(st.Rdev)
	case e.kind() == unix.S_IFLNK:
		if e.target, err = readlink(dir, name); err != nil {
			return err
		}
	}
	if e.xattrs, err = s.xattrs.read(handle(dir, name)); err != nil {
		return err
	}
	return s.entry(e)
}

func readlink(dir int, name string) (string, error) {
	buf := make([]byte, maxTarget+1)
	n, err := unix.Readlinkat(dir, name, buf)
	if errors.Is(err, unix.EINVAL) {
		return "", errReplaced // by what is no symbolic link
	}
	return string(buf[:max(n, 0)]), err
}

// content sends the runs of data among the first size bytes of fd, and the end
// of the file. If the file shrinks meanwhile, what is lost goes as a hole; the
// next pass will see the change.
func (s *sender) content(fd int, path string, size int64) error {
	for at := int64(0); at < size; {
		start, end, err := nextRun(fd, at, size)
		if err != nil {
			return pathError("seek in", path, err)
		}
		if at, err = s.run(fd, path, start, end); err != nil {
			return err
		}
		if at < end && s.Frozen {
			return fault.New(fault.Copy, "%s shrank while frozen", quoted(path))
		}
		if at < end {
			break
		}
	}
	return s.data(size, nil)
}

// nextRun finds the first run of data from at on; it is empty and at size if
// there is none (lseek(2), SEEK_DATA).
func nextRun(fd int, at, size int64) (start, end int64, err error) {
	start, err = unix.Seek(fd, at, unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) || err == nil && start >= size {
		return size, size, nil
	}
	if err != nil {
		return 0, 0, err
	}
	end, err = unix.Seek(fd, start, unix.SEEK_HOLE)
	if errors.Is(err, unix.ENXIO) { // truncated since
		return start, size, nil
	}
	return start, min(end, size), err
}

// run sends the bytes from start to end, or to where the file ends by now, and
// returns how far it came.
func (s *sender) run(fd int, path string, start, end int64) (int64, error) {
	for start < end {
		if err := interrupted(s.ctx); err != nil {
			return start, err
		}
		n, err := unix.Pread(fd, s.bulk[:min(runSize, end-start)], start)
		if err != nil {
			return start, pathError("read", path, err)
		}
		if n == 0 {
			break
		}
		if err := s.data(start, s.bulk[:n]); err != nil {
			return start, err
		}
		start += int64(n)
	}
	return start, nil
}

func (s *sender) data(offset int64, run []byte) error {
	var head [8]byte
	binary.BigEndian.PutUint64(head[:], uint64(offset))
	s.stats.Bytes += uint64(len(run))
	return s.write(transport.TypeFileData, head[:], run)
}
