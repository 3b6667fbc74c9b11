package files

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strconv"

	"golang.org/x/sync/errgroup"
)

const (
	filesInDir = 100 // about
	dirsInDir  = 40
	seed       = 4
)

// tree is a tree of generated files, which are the same each time.
type tree struct {
	files int
	limit int // no file is larger
}

// random is the source of what is random about thing n of a kind.
func random(kind, n int) *rand.Rand {
	return rand.New(rand.NewPCG(seed<<32|uint64(kind), uint64(n))) //nolint:gosec // no secret
}

// Kinds of random things.
const (
	ofDir = iota
	ofFile
	ofChange
)

// dir is the directory of some files.
func (t tree) dir(n int) string { return filepath.Join(name(ofDir, -1-n/dirsInDir), name(ofDir, n)) }

// path is where file n is.
func (t tree) path(n int) string { return filepath.Join(t.dir(n/filesInDir), name(ofFile, n)) }

var alphabets = []string{"abcdefghijklmnopqrstuvwxyz", "ABCDEFGH0123456789_-+ ", "äöüßéñ中文字", "\xe4\xf6\xfc\xdf"}

// name is a name of some length in some alphabet, one of them no UTF-8. The
// number makes it one of a kind.
func name(kind, n int) string {
	rnd := random(kind, n)
	letters := []rune(alphabets[rnd.IntN(3)])
	if rnd.IntN(20) == 0 {
		return strconv.Itoa(n) + "." + alphabets[3][:1+rnd.IntN(4)]
	}
	text := make([]rune, 1+rnd.IntN(30))
	for i := range text {
		text[i] = letters[rnd.IntN(len(letters))]
	}
	return string(text) + "." + strconv.Itoa(n)
}

// content is what is in file n: of two files one is text.
func (t tree) content(n int) []byte {
	rnd := random(ofFile, -1-n)
	b := make([]byte, rnd.IntN(t.limit+1))
	if rnd.IntN(2) == 0 {
		fill(b, rnd)
		return b
	}
	const words = "the quick brown fox jumps over a lazy dog\n"
	for i := range b {
		b[i] = words[(i+i/97*int(1+rnd.Uint32()&1))%len(words)]
	}
	return b
}

// fill fills b with what no codec shortens.
func fill(b []byte, rnd *rand.Rand) {
	for len(b) >= 8 {
		binary.LittleEndian.PutUint64(b, rnd.Uint64())
		b = b[8:]
	}
	for i := range b {
		b[i] = byte(rnd.Uint32())
	}
}

var modes = []os.FileMode{0o644, 0o644, 0o600, 0o755, 0o664}

// make makes the tree in root, which is there, for an owner.
func (t tree) make(ctx context.Context, root string, uid, gid int) error {
	var group errgroup.Group
	group.SetLimit(runtime.NumCPU())
	for first := 0; first < t.files && ctx.Err() == nil; first += filesInDir {
		group.Go(func() error { return t.makeDir(root, first, uid, gid) })
	}
	if err := group.Wait(); err != nil {
		return fmt.Errorf("make files: %w", err)
	}
	return context.Cause(ctx)
}

func (t tree) makeDir(root string, first, uid, gid int) error {
	dir := filepath.Join(root, t.dir(first/filesInDir))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, d := range []string{filepath.Dir(dir), dir} {
		if err := os.Lchown(d, uid, gid); err != nil {
			return err
		}
	}
	for n := first; n < min(first+filesInDir, t.files); n++ {
		if err := t.makeFile(filepath.Join(root, t.path(n)), n, uid, gid); err != nil {
			return err
		}
	}
	return nil
}

func (t tree) makeFile(path string, n, uid, gid int) error {
	mode := modes[n%len(modes)]
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	defer f.Close()
	if b := t.content(n); len(b) > 0 {
		if _, err := f.Write(b); err != nil {
			return err
		}
	}
	if err := f.Chown(uid, gid); err != nil {
		return err
	}
	return f.Chmod(mode)
}
