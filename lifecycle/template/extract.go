package template

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"github.com/vzkit/vzkit/internal/fault"
)

// IDShift is what a container's user namespace adds to its ids: its root is
// UID and GID outside. Zero is a privileged container.
type IDShift struct{ UID, GID uint32 }

const (
	idRange    = 65536   // ids that a container has
	maxTrailer = 1 << 20 // bytes of padding after the end of an archive
	maxWindow  = 1 << 27 // bytes of zstd window, what zstd --long makes
)

// Extract unpacks template name into the empty directory dir: owners shifted,
// modes, times, links, extended attributes and FIFOs as they were packed.
// Device nodes are skipped. The archive is not trusted: nothing is written
// outside dir and no symbolic link is followed; it is refused when it does not
// have the SHA-256, the size or the entries of its metadata
// (fault.NoTemplate). An error or the end of ctx leaves a partial tree for the
// caller to remove.
func (s Store) Extract(ctx context.Context, name, dir string, shift IDShift) error {
	if err := checkEmpty(dir); err != nil {
		return err
	}
	info, tarball, err := s.open(ctx, name)
	if err != nil {
		return err
	}
	defer tarball.Close()
	root, err := openTree(dir)
	if err != nil {
		return err
	}
	defer root.close()
	err = unpackChecked(ctx, info, tarball, &unpacker{
		tree: root, shift: shift, entries: info.Entries, bytes: info.Unpacked,
	})
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fault.Ended(ctx)
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return fault.New(fault.NoSpace, "extract template %q: %w", name, err).
			WithHint("Make room below %s.", dir)
	case hostsFault(err):
		return fmt.Errorf("extract template %q: %w", name, err)
	}
	return damaged(name, err)
}

// hostsFault tells a system call that failed for the host's reasons from one
// that an impossible archive made fail.
func hostsFault(err error) bool {
	var errno unix.Errno
	if !errors.As(err, &errno) {
		return false
	}
	switch errno {
	case unix.EEXIST, unix.EISDIR, unix.ELOOP, unix.ENAMETOOLONG, unix.ENOENT, unix.ENOTDIR, unix.ERANGE:
		return false
	}
	return true
}

func checkEmpty(dir string) error {
	files, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("extract template: %w", err)
	}
	if len(files) > 0 {
		return fault.New(fault.Exists, "extract template: %q is not empty", dir).
			WithHint("Remove what is in %s first.", dir)
	}
	return nil
}

// open returns the metadata and the open tarball that belongs to it, even
// while another process replaces both.
func (s Store) open(ctx context.Context, name string) (Info, *os.File, error) {
	tarball, err := s.Path(name)
	if err != nil {
		return Info{}, nil, err
	}
	unlock, err := lock(ctx, s.cache(), shared)
	if errors.Is(err, os.ErrNotExist) {
		return Info{}, nil, s.missing(name)
	}
	if err != nil {
		return Info{}, nil, err
	}
	defer unlock()
	info, err := s.Lookup(name)
	if err != nil {
		return Info{}, nil, err
	}
	f, err := os.Open(tarball)
	if err != nil {
		return Info{}, nil, damaged(name, err)
	}
	return info, f, nil
}

// unpackChecked unpacks file and compares its SHA-256 on the way.
func unpackChecked(ctx context.Context, info Info, file io.Reader, u *unpacker) error {
	sum := sha256.New()
	z, err := zstd.NewReader(io.TeeReader(file, sum), zstd.WithDecoderMaxWindow(maxWindow))
	if err != nil {
		return fmt.Errorf("start zstd: %w", err)
	}
	defer z.Close()
	if err := u.unpack(ctx, z); err != nil {
		return err
	}
	n, err := io.Copy(io.Discard, io.LimitReader(z, maxTrailer+1))
	if err != nil {
		return fmt.Errorf("read end of archive: %w", err)
	}
	if n > maxTrailer {
		return errors.New("data after the end of the archive")
	}
	return checkSum(sum, info.SHA256)
}

func checkSum(sum hash.Hash, want string) error {
	if got := hex.EncodeToString(sum.Sum(nil)); got != want {
		return fmt.Errorf("sha256 is %s, not %s", got, want)
	}
	return nil
}

// unpacker writes the entries of a tar stream below a directory.
type unpacker struct {
	tree    *tree
	shift   IDShift
	entries int   // how many may still come
	bytes   int64 // how many bytes of contents may still come
	times   []dirTime
	buf     []byte
}

// dirTime is the time a directory gets when everything is in it.
type dirTime struct {
	name  string
	mtime time.Time
}

func (u *unpacker) unpack(ctx context.Context, r io.Reader) error {
	u.buf = make([]byte, 256<<10)
	archive := tar.NewReader(r)
	for {
		if ctx.Err() != nil {
			return fault.Ended(ctx)
		}
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return u.finish()
		}
		if err != nil {
			return fmt.Errorf("read archive: %w", err)
		}
		if err := u.entry(ctx, h, archive); err != nil {
			return fmt.Errorf("entry %q: %w", h.Name, err)
		}
	}
}

func (u *unpacker) finish() error {
	for i := len(u.times) - 1; i >= 0; i-- {
		if err := u.tree.setTime(u.times[i].name, u.times[i].mtime); err != nil {
			return fmt.Errorf("set time of %q: %w", u.times[i].name, err)
		}
	}
	return nil
}

// entry checks a header completely before it makes anything.
func (u *unpacker) entry(ctx context.Context, h *tar.Header, body io.Reader) error {
	switch h.Typeflag {
	case tar.TypeXGlobalHeader, tar.TypeChar, tar.TypeBlock:
		return nil
	}
	name, err := localName(h.Name)
	if err != nil {
		return err
	}
	if u.entries--; u.entries < 0 {
		return errors.New("more entries than the metadata says")
	}
	if u.bytes -= h.Size; u.bytes < 0 {
		return errors.New("more bytes than the metadata says")
	}
	a, err := u.attributes(h)
	if err != nil {
		return err
	}
	return u.place(ctx, name, h, a, body)
}

func (u *unpacker) place(ctx context.Context, name string, h *tar.Header, a attributes, body io.Reader) error {
	if name == "." && h.Typeflag != tar.TypeDir {
		return errors.New("root is not a directory")
	}
	switch h.Typeflag {
	case tar.TypeDir:
		u.times = append(u.times, dirTime{name, h.ModTime})
		return u.tree.directory(name, a)
	case tar.TypeReg, tar.TypeGNUSparse:
		return u.tree.file(name, a, func(w io.Writer) error { return u.copy(ctx, w, body) })
	case tar.TypeLink:
		old, err := localName(h.Linkname)
		if err != nil {
			return fmt.Errorf("link target: %w", err)
		}
		return u.tree.link(old, name)
	case tar.TypeSymlink:
		return u.tree.symlink(h.Linkname, name, a)
	case tar.TypeFifo:
		return u.tree.fifo(name, a)
	}
	return fmt.Errorf("unknown entry type %q", h.Typeflag)
}

// copy moves an entry's contents in pieces, so that ctx is heard.
func (u *unpacker) copy(ctx context.Context, w io.Writer, body io.Reader) error {
	for {
		n, err := body.Read(u.buf)
		if ctx.Err() != nil {
			return fault.Ended(ctx)
		}
		if _, werr := w.Write(u.buf[:n]); werr != nil {
			return werr
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// localName checks the name of an entry and returns it cleaned, "." for the
// root.
func localName(name string) (string, error) {
	switch {
	case name == "":
		return "", errors.New("empty name")
	case len(name) >= unix.PathMax:
		return "", errors.New("name too long")
	case path.IsAbs(name):
		return "", errors.New("absolute name")
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == ".." {
			return "", errors.New("name leaves the tree")
		}
	}
	return path.Clean(name), nil
}

// attributes turns a header's owner, mode, time and extended attributes into
// what the file gets.
func (u *unpacker) attributes(h *tar.Header) (attributes, error) {
	if h.Uid < 0 || h.Uid >= idRange || h.Gid < 0 || h.Gid >= idRange {
		return attributes{}, fmt.Errorf("owner %d:%d is not below %d", h.Uid, h.Gid, idRange)
	}
	a := attributes{
		uid: h.Uid + int(u.shift.UID), gid: h.Gid + int(u.shift.GID),
		mode: uint32(h.Mode & 0o7777), mtime: h.ModTime, xattrs: map[string][]byte{},
	}
	for key, value := range h.PAXRecords {
		name, ok := strings.CutPrefix(key, xattrRecord)
		if !ok || !keptXattr(name) {
			continue
		}
		a.xattrs[name] = []byte(value)
	}
	if value, ok := a.xattrs[capability]; ok {
		shifted, err := shiftCapability(value, u.shift.UID)
		if err != nil {
			return a, err
		}
		a.xattrs[capability] = shifted
	}
	return a, nil
}
