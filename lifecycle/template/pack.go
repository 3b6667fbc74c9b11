package template

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vzkit/vzkit/internal/fault"
)

// xattrRecord is the prefix of a PAX record that holds an extended attribute,
// as star, GNU tar and libarchive write it.
const xattrRecord = "SCHILY.xattr."

type inode struct{ dev, ino uint64 }

// packer writes a tree as a tar stream.
type packer struct {
	tar      *tar.Writer
	linked   map[inode]string // first name of each file that has several
	entries  int
	unpacked int64
}

// pack writes the tree at root to w, names relative and in lexical order, and
// counts entries and bytes of contents. Device nodes are left out, they are
// the engine's to make, and so are sockets, which tar cannot hold.
func pack(ctx context.Context, root string, w io.Writer) (entries int, unpacked int64, err error) {
	p := packer{tar: tar.NewWriter(w), linked: map[inode]string{}}
	err = filepath.WalkDir(root, func(name string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return fault.Ended(ctx)
		}
		rel, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		return p.add(name, rel)
	})
	return p.entries, p.unpacked, errors.Join(err, p.tar.Close())
}

func (p *packer) add(name, rel string) error {
	var st unix.Stat_t
	if err := unix.Lstat(name, &st); err != nil {
		return fmt.Errorf("stat %q: %w", rel, err)
	}
	h := &tar.Header{
		Format: tar.FormatPAX, Name: rel, Mode: int64(st.Mode & 0o7777), Uid: int(st.Uid), Gid: int(st.Gid),
		ModTime: time.Unix(st.Mtim.Unix()),
	}
	ok, err := p.describe(h, name, &st)
	if err != nil || !ok {
		return err
	}
	if p.entries++; p.entries > maxEntries {
		return fmt.Errorf("more than %d entries", maxEntries)
	}
	if err := p.tar.WriteHeader(h); err != nil {
		return fmt.Errorf("pack %q: %w", rel, err)
	}
	if h.Typeflag != tar.TypeReg {
		return nil
	}
	p.unpacked += h.Size
	return p.contents(name, h.Size)
}

// describe fills in what depends on the file's type. It returns false for
// what tar cannot or should not hold.
func (p *packer) describe(h *tar.Header, name string, st *unix.Stat_t) (ok bool, err error) {
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		h.Typeflag = tar.TypeDir
		h.Name += "/"
	case unix.S_IFLNK:
		h.Typeflag = tar.TypeSymlink
		h.Linkname, err = os.Readlink(name)
	case unix.S_IFIFO:
		h.Typeflag = tar.TypeFifo
	case unix.S_IFREG:
		h.Typeflag, h.Size = tar.TypeReg, st.Size
		key := inode{st.Dev, st.Ino}
		if first := p.linked[key]; first != "" {
			h.Typeflag, h.Size, h.Linkname = tar.TypeLink, 0, first
			return true, nil
		}
		if st.Nlink > 1 {
			p.linked[key] = h.Name
		}
	default:
		return false, nil
	}
	if err == nil && (h.Typeflag == tar.TypeReg || h.Typeflag == tar.TypeDir) {
		h.PAXRecords, err = xattrs(name)
	}
	return true, err
}

func (p *packer) contents(name string, size int64) error {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	n, err := io.Copy(p.tar, io.LimitReader(f, size))
	if err == nil && n != size {
		err = fmt.Errorf("%q shrank to %d bytes", name, n)
	}
	return err
}

// keptXattr says whether an extended attribute belongs in a template: user.*
// and file capabilities.
func keptXattr(name string) bool {
	return strings.HasPrefix(name, "user.") || name == capability
}

// xattrs returns the kept extended attributes of a file as PAX records.
func xattrs(name string) (map[string]string, error) {
	list, err := sized(func(buf []byte) (int, error) { return unix.Llistxattr(name, buf) })
	if err != nil || len(list) == 0 {
		return nil, err
	}
	records := map[string]string{}
	for attr := range strings.SplitSeq(strings.TrimSuffix(string(list), "\x00"), "\x00") {
		if !keptXattr(attr) {
			continue
		}
		value, err := sized(func(buf []byte) (int, error) { return unix.Lgetxattr(name, attr, buf) })
		if err != nil {
			return nil, fmt.Errorf("read xattr %q of %q: %w", attr, name, err)
		}
		records[xattrRecord+attr] = string(value)
	}
	return records, nil
}

// sized calls get twice: for the size, then for the bytes. A file system
// without extended attributes has none.
func sized(get func([]byte) (int, error)) ([]byte, error) {
	n, err := get(nil)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return nil, nil
	}
	if err != nil || n == 0 {
		return nil, err
	}
	buf := make([]byte, n)
	n, err = get(buf)
	return buf[:max(n, 0)], err
}
