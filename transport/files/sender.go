package files

import (
	"encoding/binary"
	"encoding/json"
	"errors"

	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/transport"
	"golang.org/x/sys/unix"
)

// sender makes the frames of one pass. Those that are small are collected in a
// job; what has to be read is the workers'.
type sender struct {
	*pipeline
	PassOptions
	seed   uint64
	now    *job // being filled with frames
	own    *worker
	looked uint64 // entries
}

// jobBytes and jobFrames bound what is collected in one job.
const (
	jobBytes  = 64 << 10
	jobFrames = 256
)

func (s *sender) begin() error {
	return s.control(transport.TypeFilesBegin, passBegin{Pass: s.Pass, Frozen: s.Frozen && !s.More, Seed: seedText(s.seed)})
}

// finish ends the pipeline and the pass.
func (s *sender) finish() (Stats, error) {
	if s.now != nil {
		_ = s.flush() // the pipeline has the error
	}
	err := s.pipeline.end()
	stats := s.stats
	stats.Entries = s.looked
	if err == nil {
		err = s.control(transport.TypeFilesEnd, stats.end())
	}
	if err == nil {
		err = fault.Wrap(fault.Copy, s.w.Flush())
	}
	return stats, err
}

// control writes a frame with nothing in the pipeline.
func (s *sender) control(t transport.Type, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return fault.Wrap(fault.Copy, s.w.WriteFrame(t, b))
}

// frame adds a frame; add appends its payload.
func (s *sender) frame(t transport.Type, stat Stats, add func(b []byte) []byte) error {
	if s.now == nil {
		s.now = s.take()
	}
	s.now.buf = add(s.now.buf)
	s.now.frame(t)
	s.now.stat.add(stat)
	return s.full()
}

// full hands over what is collected if that is enough.
func (s *sender) full() error {
	if len(s.now.buf) < jobBytes && len(s.now.out) < jobFrames {
		return nil
	}
	return s.flush()
}

// flush hands over what is collected.
func (s *sender) flush() error {
	j := s.now
	s.now = nil
	if j == nil {
		return nil
	}
	return s.put(j)
}

// submit hands over a job after what is collected.
func (s *sender) submit(j *job) error {
	if err := s.flush(); err != nil {
		j.work(s.own, j) // lets go of what it holds
		return err
	}
	return s.put(j)
}

func (s *sender) delete(path string) error {
	return s.frame(transport.TypeFileDelete, Stats{Deleted: 1}, func(b []byte) []byte { return append(b, path...) })
}

func (s *sender) numbered(t transport.Type, number uint64, path string) error {
	return s.frame(t, Stats{}, func(b []byte) []byte { return append(binary.BigEndian.AppendUint64(b, number), path...) })
}

func (s *sender) link(path, target string) error {
	return s.entry(&entry{path: path, link: true, target: target})
}

func (s *sender) entry(e *entry) error {
	if err := e.sendable(); err != nil {
		return err
	}
	return s.frame(transport.TypeFileEntry, Stats{Sent: 1}, e.append)
}

// sendable refuses what is beyond the limits of the wire.
func (e *entry) sendable() error {
	if err := e.check(); err != nil {
		return fault.New(fault.Copy, "%v", err).
			WithHint("Its size or its extended attributes are beyond what can be sent; make them smaller.")
	}
	return nil
}

// describe makes the entry of an inode as st shows it.
func describe(path string, st *unix.Stat_t) *entry {
	e := &entry{path: path, mode: st.Mode, uid: st.Uid, gid: st.Gid, atime: st.Atim, mtime: st.Mtim}
	switch {
	case e.regular():
		e.size = st.Size
	case e.device():
		e.major, e.minor = unix.Major(st.Rdev), unix.Minor(st.Rdev)
	}
	return e
}

// object sends name in the directory dir, which is no regular file, as st shows
// it. A directory is sent by the name "." in itself. An error without a path
// means that nothing was sent.
func (s *sender) object(dir int, name, path string, st *unix.Stat_t) (err error) {
	e := describe(path, st)
	switch {
	case e.isDir():
		e.flags, e.project, err = readFlags(dir)
	case e.kind() == unix.S_IFLNK:
		e.target, err = readlink(dir, name)
	}
	if err != nil {
		return err
	}
	if e.xattrs, err = s.own.xattrs.read(handle(dir, name)); err != nil {
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

func appendOffset(b []byte, offset int64) []byte {
	return binary.BigEndian.AppendUint64(b, uint64(offset))
}

// appendCopy makes the payload of a file-copy frame.
func appendCopy(b []byte, offset, from, length int64, sum uint64) []byte {
	b = binary.BigEndian.AppendUint32(appendOffset(appendOffset(b, offset), from), uint32(length))
	return binary.BigEndian.AppendUint64(b, sum)
}
