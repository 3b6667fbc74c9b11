package files

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
)

const blockSize = 4096

// create makes a file that is not there yet, for an owner.
func create(path string, uid, gid int) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	if err := f.Chown(uid, gid); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// writeRandom makes a file of size random bytes.
func writeRandom(path string, size int64, uid, gid int) error {
	f, err := create(path, uid, gid)
	if err != nil {
		return err
	}
	_, err = io.CopyN(f, &noise{random(ofFile, 0)}, size)
	return errors.Join(err, f.Close())
}

// noise is an endless stream of random bytes.
type noise struct{ rnd *rand.Rand }

func (n *noise) Read(b []byte) (int, error) {
	fill(b, n.rnd)
	return len(b), nil
}

// rewriteBlocks rewrites one of a hundred blocks of a file, at random.
func rewriteBlocks(path string, rnd *rand.Rand) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	blocks := info.Size() / blockSize
	block := make([]byte, blockSize)
	done := map[int64]bool{}
	for int64(len(done)) < max(1, blocks/100) {
		n := rnd.Int64N(max(1, blocks))
		if done[n] {
			continue
		}
		done[n] = true
		fill(block, rnd)
		if _, err := f.WriteAt(block, n*blockSize); err != nil {
			return err
		}
	}
	return nil
}

// insert puts that many random bytes before the content of a file, as an editor
// would: in a new file of the same name.
func insert(path string, bytes int64, rnd *rand.Rand, uid, gid int) error {
	old, err := os.Open(path)
	if err != nil {
		return err
	}
	defer old.Close()
	f, err := create(path+".new", uid, gid)
	if err != nil {
		return err
	}
	_, err = io.CopyN(f, &noise{rnd}, bytes)
	if err == nil {
		_, err = io.Copy(f, old)
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// sized is a file and its size.
type sized struct {
	path string
	size int64
}

// changePercent rewrites the beginnings of random files in a tree, until one in
// a hundred of its bytes is another.
func changePercent(root string, rnd *rand.Rand) error {
	files, err := regular(root)
	if err != nil {
		return err
	}
	left := total(files) / 100
	rnd.Shuffle(len(files), func(i, j int) { files[i], files[j] = files[j], files[i] })
	for _, f := range files {
		n := min(left, f.size)
		if err := overwrite(f.path, n, rnd); err != nil {
			return err
		}
		left -= n
	}
	if left > 0 {
		return fmt.Errorf("tree %q has too few bytes", root)
	}
	return nil
}

func overwrite(path string, n int64, rnd *rand.Rand) error {
	if n == 0 {
		return nil
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = io.CopyN(f, &noise{rnd}, n)
	return errors.Join(err, f.Close())
}

// links is the number of a file's names.
func links(info fs.FileInfo) uint64 { return uint64(info.Sys().(*syscall.Stat_t).Nlink) }

// regular are the regular files of a tree that have one name.
func regular(root string) (files []sized, err error) {
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err == nil && links(info) == 1 {
			files = append(files, sized{path, info.Size()})
		}
		return err
	})
	return files, err
}

func total(files []sized) (sum int64) {
	for _, f := range files {
		sum += f.size
	}
	return sum
}

// warm reads all of a tree, so that it is in the page cache.
func warm(root string) error {
	files, err := regular(root)
	for _, file := range files {
		if err != nil {
			break
		}
		var f *os.File
		if f, err = os.Open(file.path); err == nil {
			_, err = io.Copy(io.Discard, f)
			f.Close()
		}
	}
	return err
}
