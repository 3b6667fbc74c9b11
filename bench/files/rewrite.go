package files

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/vzkit/vzkit/internal/fault"
)

// hotFiles is how many files of a tree are rewritten again and again.
const hotFiles = 100

// hotSize is the size of each of them.
const hotSize = 4096

// Rewriter rewrites a hundred files of a generated tree, inside a container.
type Rewriter struct {
	Dir   string        // root of the tree
	Files int           // in the tree
	Every time.Duration // how often each is rewritten
}

// Check refuses what cannot be rewritten.
func (r Rewriter) Check() error {
	if r.Files < hotFiles {
		return fault.New(fault.BadValue, "number of files %d out of range", r.Files).WithHint("Give at least %d.", hotFiles)
	}
	if r.Every <= 0 {
		return fault.New(fault.BadValue, "time %v out of range", r.Every).WithHint("Give a time such as 100ms.")
	}
	return nil
}

// Run rewrites until the context ends.
func (r Rewriter) Run(ctx context.Context) error {
	tick := time.NewTicker(r.Every)
	defer tick.Stop()
	for round := uint64(1); ; round++ {
		if err := r.round(round); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// hot are the paths, in the tree, of what is rewritten.
func (r Rewriter) hot() (paths []string) {
	for i := range hotFiles {
		paths = append(paths, tree{}.path(i*(r.Files/hotFiles)))
	}
	return paths
}

// round rewrites each file once. A write is all or nothing for who freezes.
func (r Rewriter) round(n uint64) error {
	content := roundContent(n)
	for _, path := range r.hot() {
		f, err := os.OpenFile(filepath.Join(r.Dir, path), os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		_, err = f.WriteAt(content, 0)
		if n == 1 {
			err = errors.Join(err, f.Truncate(hotSize))
		}
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	return nil
}

func roundContent(n uint64) []byte {
	return bytes.Repeat(binary.LittleEndian.AppendUint64(nil, n), hotSize/8)
}

// rounds are the rounds that the files are of. One that is of none is an error.
func (r Rewriter) rounds() (rounds []uint64, err error) {
	for _, path := range r.hot() {
		b, err := os.ReadFile(filepath.Join(r.Dir, path))
		if err != nil {
			return nil, err
		}
		if len(b) < 8 || !bytes.Equal(b, roundContent(binary.LittleEndian.Uint64(b))) {
			return nil, fmt.Errorf("file %q holds no round of the rewriter's", path)
		}
		rounds = append(rounds, binary.LittleEndian.Uint64(b))
	}
	return rounds, nil
}
