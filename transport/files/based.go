package files

import (
	"context"
	"encoding/binary"
	"errors"
	"io"

	"github.com/zeebo/blake3"
	"github.com/zeebo/xxh3"

	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/transport"
	"github.com/vzkit/vzkit/transport/delta"
)

// SourceBase is the base of the receiver, as the sender can make use of it.
type SourceBase struct {
	Known *Known

	// Signature waits for the answer to the file-sign frame with that number.
	Signature func(ctx context.Context, number uint32) (*delta.Signature, error)
}

const (
	wholeFile  = 64 << 20  // up to that, a file is first looked for as a whole
	leastDelta = 256 << 10 // from that on, blocks of the base are looked for in it
	copyRun    = 1 << 20   // of a file-copy frame
	maxPending = 32        // signatures that are waited for
)

// pending is a file that waits for the signature of what the base has.
type pending struct {
	f      *large
	e      *entry
	number uint32
}

// basedOn finds the content of a small file in the base, and returns what
// stands for it in a batch.
func (s *sender) basedOn(e *entry, content []byte) []byte {
	if s.Base == nil || e.basis != basisNone || len(content) == 0 {
		return content
	}
	path, ok := s.Base.Known.Find(e.size, sumContent(content))
	if !ok {
		return content
	}
	e.basis, e.from = basisBase, path
	return binary.BigEndian.AppendUint64(nil, sum64(content, s.seed))
}

// basedLarge sends a large file out of the base, now or when its signature is
// there. done is false if the base has nothing like it.
func (s *scanner) basedLarge(f *large, e *entry) (done bool, err error) {
	if s.Base == nil || f.basis != basisNone || f.size == 0 {
		return false, nil
	}
	_, there := s.Base.Known.At(f.path)
	if f.size <= wholeFile && !f.sparse {
		if done, err := s.wholeFromBase(f, e); done || err != nil {
			return done, err
		}
	}
	if !there || f.size < leastDelta {
		return false, nil
	}
	return true, s.askFor(f, e)
}

// wholeFromBase looks for all of a file. It is read twice: what has changed
// meanwhile goes as it is then.
func (s *scanner) wholeFromBase(f *large, e *entry) (done bool, err error) {
	whole := blake3.New()
	var runs []uint64
	b := make([]byte, copyRun)
	for at := int64(0); at < f.size; at += copyRun {
		n, err := preadFull(f.fd, b[:min(copyRun, f.size-at)], at)
		if err != nil {
			return false, pathError("read", f.path, err)
		}
		whole.Write(b[:n])
		runs = append(runs, sum64(b[:n], s.seed))
	}
	path, ok := s.Base.Known.Find(f.size, [16]byte(whole.Sum(nil)))
	if !ok {
		return false, nil
	}
	e.basis, e.from = basisBase, path
	if err := s.entry(e); err != nil {
		return false, err
	}
	blocks := s.newBlockSummer(f)
	for i, want := range runs {
		at := int64(i) * copyRun
		n, err := preadFull(f.fd, b[:min(copyRun, f.size-at)], at)
		if err != nil {
			return false, pathError("read", f.path, err)
		}
		blocks.add(at, b[:n])
		err = s.copyOrData(delta.Run{Offset: at, Length: int64(n), From: at, Sum: sum64(b[:n], s.seed), Data: b[:n]}, want)
		if err != nil {
			return false, err
		}
	}
	s.keepSums(f, blocks)
	return true, s.data(f.size, nil)
}

// copyOrData sends a run as a copy if it has the sum that the base has there.
func (s *scanner) copyOrData(r delta.Run, want uint64) error {
	if r.Sum == want && r.Length > 0 {
		return s.copyRun(r)
	}
	for len(r.Data) > 0 {
		n := min(len(r.Data), chunkSize)
		if err := s.data(r.Offset, r.Data[:n]); err != nil {
			return err
		}
		r.Offset, r.Data = r.Offset+int64(n), r.Data[n:]
	}
	return nil
}

func (s *sender) copyRun(r delta.Run) error {
	return s.frame(transport.TypeFileCopy, Stats{}, func(b []byte) []byte { return appendCopy(b, r.Offset, r.From, r.Length, r.Sum) })
}

// askFor asks for the signature of the file in the base, and puts this one off.
func (s *scanner) askFor(f *large, e *entry) error {
	if len(s.pending) == maxPending {
		if err := s.sendPending(1); err != nil {
			return err
		}
	}
	s.asked++
	number := s.asked
	f.users.Add(1)
	s.pending = append(s.pending, pending{f, e, number})
	return s.frame(transport.TypeFileSign, Stats{}, func(b []byte) []byte {
		return appendBytes(binary.BigEndian.AppendUint32(b, number), f.path)
	})
}

// sendPending sends the first n files that wait.
func (s *scanner) sendPending(n int) error {
	if err := s.flush(); err != nil {
		return err
	}
	for _, p := range s.pending[:n] {
		sig, err := s.Base.Signature(s.ctx, p.number)
		if err == nil && sig.Size() == 0 { // it has vanished from the base
			s.larges = append(s.larges, p.f)
			err = s.sendLarge(p.f, p.e)
		} else if err == nil {
			err = s.sendDelta(p, sig)
		}
		if err != nil {
			return err
		}
		p.f.close()
	}
	s.pending = s.pending[n:]
	return nil
}

// dropPending lets go of files that are not sent any more.
func (s *scanner) dropPending() {
	for _, p := range s.pending {
		p.f.close()
	}
	s.pending = nil
}

// sendDelta sends a file by what the base has of it.
func (s *scanner) sendDelta(p pending, sig *delta.Signature) error {
	p.e.basis, p.e.from = basisBase, p.f.path
	if err := s.entry(p.e); err != nil {
		return err
	}
	blocks := s.newBlockSummer(p.f)
	o := delta.Options{Seed: s.seed, Data: func(at int64) (int64, int64, error) { return nextRun(p.f.fd, at, p.f.size) }}
	err := sig.Match(s.ctx, readerAt(p.f.fd), p.f.size, o, func(r delta.Run) error {
		blocks.add(r.Offset, r.Data)
		if r.From < 0 {
			return s.data(r.Offset, r.Data)
		}
		return s.copyRun(r)
	})
	if errors.Is(err, io.ErrUnexpectedEOF) {
		if s.Frozen {
			return fault.New(fault.Copy, "%s shrank while frozen", quoted(p.f.path))
		}
		p.f.shrank.Store(true)
	} else if err != nil {
		return pathError("read", p.f.path, err)
	}
	s.keepSums(p.f, blocks)
	return s.data(p.f.size, nil)
}

// readerAt reads from a descriptor that somebody else closes.
type readerAt int

func (f readerAt) ReadAt(b []byte, at int64) (int, error) {
	n, err := preadFull(int(f), b, at)
	if err == nil && n < len(b) {
		err = io.EOF
	}
	return n, err
}

// blockSummer sums the blocks of a file whose bytes come one after the other.
type blockSummer struct {
	f    *large
	hash *xxh3.Hasher
	at   int64
	data bool // in the block that is being summed
}

// newBlockSummer is nil if nobody will ask for the sums.
func (s *scanner) newBlockSummer(f *large) *blockSummer {
	if s.src.once {
		return nil
	}
	return &blockSummer{f: f, hash: xxh3.NewSeed(s.seed)}
}

// add takes the bytes at an offset; those before, if they have not come, are
// zero.
func (b *blockSummer) add(offset int64, data []byte) {
	if b == nil {
		return
	}
	b.zero(offset)
	b.feed(data, true)
}

// zero takes zeros up to an offset.
func (b *blockSummer) zero(offset int64) {
	var none [4096]byte
	for b.at < offset {
		b.feed(none[:min(int64(len(none)), offset-b.at)], false)
	}
}

func (b *blockSummer) feed(data []byte, real bool) {
	for len(data) > 0 {
		n := min(int64(len(data)), b.f.block-b.at%b.f.block)
		b.hash.Write(data[:n])
		b.data = b.data || real
		b.at += n
		data = data[n:]
		if b.at%b.f.block == 0 || b.at == b.f.size {
			b.end()
		}
	}
}

func (b *blockSummer) end() {
	if b.data {
		b.f.sums.sums[(b.at-1)/b.f.block] = b.hash.Sum64() | 1
	}
	b.hash.Reset()
	b.data = false
}

// keepSums notes that the sums of a file are complete.
func (s *scanner) keepSums(f *large, b *blockSummer) {
	if b == nil {
		return
	}
	b.zero(f.size)
	s.larges = append(s.larges, f)
}
