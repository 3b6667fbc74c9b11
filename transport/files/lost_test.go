package files

import (
	"bytes"
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vzkit/vzkit/transport"
	"github.com/vzkit/vzkit/transport/delta"
)

// signing is a wire on which the receiver signs what it is asked for.
type signing struct {
	tape
	base  *Base
	asked chan string
}

func (s *signing) WriteFrame(t transport.Type, parts ...[]byte) error {
	if t != transport.TypeFileSign {
		return s.tape.WriteFrame(t, parts...)
	}
	s.asked <- string(bytes.Join(parts, nil)[4+2:]) // behind number and length
	return nil
}

func (s *signing) signature(ctx context.Context, _ uint32) (*delta.Signature, error) {
	return s.base.Sign(ctx, <-s.asked)
}

// TestHoleInWhatBaseHad: the sums of what came from the base are those of its
// bytes, so that a hole punched there later is not taken for what is there.
func TestHoleInWhatBaseHad(t *testing.T) {
	src, old := t.TempDir(), t.TempDir()
	content := make([]byte, 1<<20)
	rand.NewChaCha8([32]byte{1}).Read(content)
	write(t, old+"/f", string(content))
	copy(content[512<<10:], "changed")
	write(t, src+"/f", string(content))
	m := newMover(t, src)
	base := openBase(t, old)
	m.target.UseBase(base.Root())
	wire := &signing{base: base, asked: make(chan string, 1)}
	sent, err := m.source.Pass(t.Context(), wire, PassOptions{Pass: 1, Base: &SourceBase{Known: told(t, base), Signature: wire.signature}})
	must(t, err)
	if sent.Bytes > 64<<10 {
		t.Fatalf("%+v: nothing came from the base", sent)
	}
	_, err = wire.receive(t.Context(), m.target)
	must(t, err)
	m.passes = 1
	m.compare()
	punch(t, src+"/f", 64<<10, 128<<10)
	m.pass(PassOptions{})
	m.compare()
}

func punch(t *testing.T, path string, at, length int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	must(t, err)
	defer f.Close()
	must(t, unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, at, length))
}

// TestWrittenAfterItsStamp: a write stamps its file first and writes then. One
// that had only stamped it when it was read is told of by the watch.
func TestWrittenAfterItsStamp(t *testing.T) {
	for _, all := range []bool{false, true} {
		src := t.TempDir()
		path := filepath.Join(src, "f")
		write(t, path, "before")
		m := newMover(t, src)
		if m.source.Watched() != nil {
			t.Skip(m.source.Watched())
		}
		m.pass(PassOptions{})
		write(t, path, "behind")
		var st unix.Stat_t
		must(t, unix.Lstat(path, &st))
		n := m.source.root.find("f")
		n.digest, n.settled = digest(&st), true // as if the pass had seen this stamp
		m.pass(PassOptions{All: all})
		m.compare()
	}
}

// TestDirectoryThatWentBeforeItCame: what was to be sent as a directory is a file
// when the next pass looks, and nobody descends into that.
func TestDirectoryThatWentBeforeItCame(t *testing.T) {
	src := t.TempDir()
	m := newMover(t, src)
	m.pass(PassOptions{})
	n := &node{name: "x", missing: true}
	n.dir = &directory{node: n} // it vanished when the pass wanted to descend
	m.source.root.put(n)
	write(t, src+"/x", "a file now")
	m.pass(PassOptions{Frozen: true})
	m.compare()
}
