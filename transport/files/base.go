package files

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"io"
	"os"
	"strings"
	"sync"

	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/transport"
	"github.com/vzkit/vzkit/transport/delta"
	"github.com/zeebo/blake3"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

const (
	baseFrame   = 256 << 10 // bytes of a base-files or file-signature frame
	baseJob     = 128       // files that one core sums at a time
	baseWorkers = 2

	// maxSummed is the size up to which a file of the base is found by
	// content. A larger one has zeros in place of its sum, so that telling
	// does not take as long as reading all of the base.
	maxSummed = 64 << 20
)

// Base is a tree like the one to come. It is read and never written.
type Base struct {
	tree *os.File // the root in a mount of its own, see cloneMount
}

// OpenBase opens the directory dir. Its file system stays in use until Close.
// It needs CAP_SYS_ADMIN. Errors: fault.Copy.
func OpenBase(dir string) (*Base, error) {
	tree, err := cloneMount(dir)
	if err != nil {
		return nil, err
	}
	return &Base{tree}, nil
}

// Root is the root of the base, valid until Close.
func (b *Base) Root() *os.File { return b.tree }

// Close lets go of the base.
func (b *Base) Close() error { return b.tree.Close() }

// List writes the base-files frames and base-end, and returns how many files
// they tell of. Files that cannot be read are left out. Errors:
// fault.Interrupted if ctx is done, and those of w.
func (b *Base) List(ctx context.Context, w FrameWriter) (files int, err error) {
	fd, err := openDir(int(b.tree.Fd()), nil)
	if err != nil {
		return 0, pathError("open directory", "", err)
	}
	walk := &baseWalk{
		trail: newTrail(fd), linked: make(map[uint64]struct{}),
		jobs: make(chan baseFiles), frames: make(chan baseTold, baseWorkers),
	}
	defer walk.trail.close()
	g, each := errgroup.WithContext(ctx)
	walk.ctx = each
	g.Go(func() error {
		defer close(walk.jobs)
		return walk.directory()
	})
	g.Go(func() error { return b.sumAll(walk) })
	g.Go(func() error {
		for f := range walk.frames {
			if files += f.files; f.files == 0 {
				continue
			}
			if err := w.WriteFrame(transport.TypeBaseFiles, f.payload); err != nil {
				return fault.Wrap(fault.Copy, err)
			}
		}
		return nil
	})
	if err := g.Wait(); err != nil {
		return files, fault.Wrap(fault.Interrupted, err)
	}
	return files, endBase(w, files)
}

func endBase(w FrameWriter, files int) error {
	end, err := json.Marshal(baseEnd{files})
	if err != nil {
		return err
	}
	if err := w.WriteFrame(transport.TypeBaseEnd, end); err != nil {
		return fault.Wrap(fault.Copy, err)
	}
	return fault.Wrap(fault.Copy, w.Flush())
}

// baseEnd is the payload of base-end.
type baseEnd struct {
	Files int `json:"files"`
}

// baseFiles are some files of one directory.
type baseFiles struct {
	dir   []string
	names []string
}

// baseTold is a base-files frame.
type baseTold struct {
	payload []byte
	files   int
}

// baseWalk goes through the tree.
type baseWalk struct {
	ctx    context.Context
	trail  *trail
	linked map[uint64]struct{} // inodes with several names, seen
	jobs   chan baseFiles
	frames chan baseTold
}

// directory goes through the one at the end of the trail. What cannot be read
// is left out.
func (l *baseWalk) directory() error {
	names, err := l.trail.list()
	if err != nil {
		return nil
	}
	files := baseFiles{dir: append([]string{}, l.trail.names...)}
	for _, name := range names {
		st, err := l.trail.stat(name)
		if err != nil {
			continue
		}
		switch {
		case st.Mode&unix.S_IFMT == unix.S_IFDIR:
			err = l.below(name)
		case l.wanted(&st):
			files.names = append(files.names, name)
		}
		if err == nil && len(files.names) == baseJob {
			err = l.send(&files)
		}
		if err != nil {
			return err
		}
	}
	return l.send(&files)
}

func (l *baseWalk) below(name string) error {
	if l.trail.bytes+len(name) > maxPath || l.trail.push(name) != nil {
		return nil
	}
	defer l.trail.pop()
	return l.directory()
}

// wanted tells whether a file is regular, not empty and not told of before.
func (l *baseWalk) wanted(st *unix.Stat_t) bool {
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size == 0 || st.Size > maxSize {
		return false
	}
	if st.Nlink == 1 {
		return true
	}
	_, seen := l.linked[st.Ino]
	l.linked[st.Ino] = struct{}{}
	return !seen
}

func (l *baseWalk) send(f *baseFiles) error {
	names := f.names
	f.names = nil
	if len(names) == 0 {
		return context.Cause(l.ctx)
	}
	select {
	case l.jobs <- baseFiles{f.dir, names}:
		return nil
	case <-l.ctx.Done():
		return context.Cause(l.ctx)
	}
}

// sumAll makes a frame of each job.
func (b *Base) sumAll(walk *baseWalk) error {
	defer close(walk.frames)
	var g errgroup.Group
	for range baseWorkers {
		g.Go(func() error {
			s := &summer{root: int(b.tree.Fd()), buf: make([]byte, 1<<20), hash: blake3.New()}
			for job := range walk.jobs {
				told := s.sum(walk.ctx, job)
				select {
				case walk.frames <- told:
				case <-walk.ctx.Done():
					return context.Cause(walk.ctx)
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// summer sums files for one core.
type summer struct {
	root int
	buf  []byte
	hash *blake3.Hasher
}

func (s *summer) sum(ctx context.Context, job baseFiles) (told baseTold) {
	fd, err := openDir(s.root, job.dir)
	if err != nil {
		return told
	}
	defer unix.Close(fd)
	told.payload = appendBytes(nil, strings.Join(job.dir, "/"))
	for _, name := range job.names {
		size, sum, err := s.file(ctx, fd, name)
		if err != nil || size == 0 {
			continue
		}
		told.files++
		told.payload = append(append(told.payload, uint8(len(name))), name...)
		told.payload = binary.BigEndian.AppendUint64(told.payload, uint64(size))
		told.payload = append(told.payload, sum[:]...)
	}
	return told
}

// file sums one file, as long as it turns out to be.
func (s *summer) file(ctx context.Context, dir int, name string) (size int64, sum [16]byte, err error) {
	f, size, err := openInBase(dir, name)
	if err != nil || size == 0 || size > maxSummed {
		if f != nil {
			f.Close()
		}
		return size, sum, err
	}
	defer f.Close()
	n, err := io.ReadFull(f, s.buf[:min(size+1, int64(len(s.buf)))])
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return int64(n), sumContent(s.buf[:n]), nil
	}
	s.hash.Reset()
	for size = 0; err == nil && size <= maxSummed && ctx.Err() == nil; {
		s.hash.Write(s.buf[:n])
		size += int64(n)
		n, err = f.Read(s.buf)
	}
	if err == io.EOF {
		copy(sum[:], s.hash.Sum(nil))
		return size, sum, nil
	}
	return 0, sum, err
}

// openInBase opens a regular file in a directory, and nothing else.
func openInBase(dir int, name string) (*os.File, int64, error) {
	fd, err := openBeneath(dir, name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOATIME, 0)
	if err != nil {
		return nil, 0, err
	}
	f := os.NewFile(uintptr(fd), name)
	var st unix.Stat_t
	if err = unix.Fstat(fd, &st); err == nil && st.Mode&unix.S_IFMT != unix.S_IFREG {
		err = errReplaced
	}
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, st.Size, nil
}

// Sign makes the signature of the file of the base at path: that of no file if
// none can be read there. Errors: fault.Protocol if the path is not allowed,
// fault.Interrupted.
func (b *Base) Sign(ctx context.Context, path string) (*delta.Signature, error) {
	parts, name, err := splitEntry(path)
	if err != nil {
		return nil, err
	}
	s, err := b.sign(ctx, parts, name)
	if err != nil {
		return &delta.Signature{}, fault.Ended(ctx)
	}
	return s, nil
}

func (b *Base) sign(ctx context.Context, parts []string, name string) (*delta.Signature, error) {
	dir, err := openDir(int(b.tree.Fd()), parts)
	if err != nil {
		return nil, err
	}
	defer unix.Close(dir)
	f, size, err := openInBase(dir, name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return delta.Sign(ctx, f, size, func(at int64) (int64, int64, error) {
		return nextRun(int(f.Fd()), at, size)
	})
}

// maxSigning is the most file-sign frames that may wait for their answer.
const maxSigning = 1024

// Signer answers file-sign frames while others go on.
type Signer struct {
	base  *Base
	ctx   context.Context
	w     FrameWriter
	tasks chan signTask
	group *errgroup.Group
	once  sync.Once
}

type signTask struct {
	number uint32
	path   string
}

// NewSigner starts to answer on w, which others may write to meanwhile. The
// caller must Close it.
func (b *Base) NewSigner(ctx context.Context, w FrameWriter) *Signer {
	s := &Signer{base: b, w: w, tasks: make(chan signTask, maxSigning)}
	s.group, s.ctx = errgroup.WithContext(ctx)
	s.group.Go(s.run)
	return s
}

// Request takes the payload of a file-sign frame, of which it keeps nothing. It
// does not wait. Errors: fault.Protocol.
func (s *Signer) Request(payload []byte) error {
	c := &cursor{rest: payload}
	task := signTask{number: uint32(c.number(4)), path: string(c.bytes(c.number(2)))}
	if c.short || len(c.rest) > 0 {
		return hostile("malformed frame %v of %d bytes", transport.TypeFileSign, len(payload))
	}
	if _, _, err := splitEntry(task.path); err != nil {
		return err
	}
	select {
	case s.tasks <- task:
		return nil
	default:
		return hostile("more than %d files to be signed at once", maxSigning)
	}
}

// Close waits for the answers that are due, unless ctx is done, and returns the
// first error: fault.Interrupted, or that of w. No Request may come after it.
func (s *Signer) Close() error {
	s.once.Do(func() { close(s.tasks) })
	return s.group.Wait()
}

// run signs one file after the other: signing one takes all cores.
func (s *Signer) run() error {
	for task := range s.tasks {
		sig, err := s.base.Sign(s.ctx, task.path)
		if err != nil {
			return err
		}
		if err := s.answer(task.number, sig.Encode()); err != nil {
			return fault.Wrap(fault.Copy, err)
		}
	}
	return nil
}

func (s *Signer) answer(number uint32, sig []byte) error {
	var head [5]byte
	binary.BigEndian.PutUint32(head[:], number)
	for head[4] == 0 {
		n := min(len(sig), baseFrame)
		if n == len(sig) {
			head[4] = 1
		}
		if err := s.w.WriteFrame(transport.TypeSignature, head[:], sig[:n]); err != nil {
			return err
		}
		sig = sig[n:]
	}
	return s.w.Flush()
}
