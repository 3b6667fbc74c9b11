package files

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// carried reports whether the extended attribute belongs to the file rather
// than to its file system (xattr(7)).
func carried(name string) bool {
	for _, class := range []string{"user.", "trusted.", "security."} {
		if strings.HasPrefix(name, class) {
			return len(name) > len(class)
		}
	}
	return name == "system.posix_acl_access" || name == "system.posix_acl_default"
}

// xattrsAllowed checks the limits and the names, each of which may come once.
func xattrsAllowed(xs []xattr) bool {
	seen := make(map[string]bool, len(xs))
	total := 0
	for _, x := range xs {
		if !carried(x.name) || len(x.name) > maxName || strings.IndexByte(x.name, 0) >= 0 ||
			len(x.value) > maxXattrValue || seen[x.name] {
			return false
		}
		seen[x.name] = true
		total += len(x.name) + len(x.value)
	}
	return len(xs) <= maxXattrs && total <= maxXattrBytes
}

// handle is a path of bounded length to name in the directory dir, for the
// system calls that know no directory descriptor. Use only those that do not
// follow a final symbolic link.
func handle(dir int, name string) string {
	return fmt.Sprintf("/proc/self/fd/%d/%s", dir, name)
}

// xattrIO reads and writes extended attributes with buffers of its own.
type xattrIO struct{ names, value []byte }

func newXattrIO() *xattrIO {
	return &xattrIO{make([]byte, maxXattrValue), make([]byte, maxXattrValue)}
}

// list returns the names of the attributes that are carried; none on a file
// system that has no attributes.
func (x *xattrIO) list(path string) ([]string, error) {
	n, err := unix.Llistxattr(path, x.names)
	return x.listed(n, err)
}

// listed takes the names apart that n bytes have.
func (x *xattrIO) listed(n int, err error) ([]string, error) {
	if errors.Is(err, unix.ENOTSUP) || n == 0 && err == nil {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	names := strings.Split(strings.TrimSuffix(string(x.names[:n]), "\x00"), "\x00")
	return slices.DeleteFunc(names, func(s string) bool { return !carried(s) }), nil
}

// read returns the attributes that are carried.
func (x *xattrIO) read(path string) ([]xattr, error) {
	names, err := x.list(path)
	if err != nil {
		return nil, err
	}
	return x.get(names, func(name string) (int, error) { return unix.Lgetxattr(path, name, x.value) })
}

// readOpen is read for an open file.
func (x *xattrIO) readOpen(fd int) ([]xattr, error) {
	n, err := unix.Flistxattr(fd, x.names)
	names, err := x.listed(n, err)
	if err != nil || len(names) == 0 {
		return nil, err
	}
	return x.get(names, func(name string) (int, error) { return unix.Fgetxattr(fd, name, x.value) })
}

func (x *xattrIO) get(names []string, value func(name string) (int, error)) (xs []xattr, err error) {
	for _, name := range names {
		n, err := value(name)
		if errors.Is(err, unix.ENODATA) {
			continue // removed since it was listed
		}
		if err != nil {
			return nil, fmt.Errorf("attribute %q: %w", name, err)
		}
		xs = append(xs, xattr{name, slices.Clone(x.value[:n])})
	}
	return xs, nil
}
