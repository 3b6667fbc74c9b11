package files

import (
	"strings"

	"golang.org/x/sys/unix"
)

// Limits of the wire, see the package comment.
const (
	maxPath   = 65535
	maxName   = 255
	maxTarget = 4095
)

// splitPath checks a path from the peer and returns its components; the root
// has none. It allows nothing that could lead out of the tree or that names an
// entry in two ways.
func splitPath(path string) ([]string, error) {
	if path == "" {
		return nil, nil
	}
	if len(path) > maxPath {
		return nil, hostile("path of %d bytes is too long", len(path))
	}
	parts := strings.Split(path, "/")
	for _, p := range parts {
		if p == "" || p == "." || p == ".." || len(p) > maxName || strings.IndexByte(p, 0) >= 0 {
			return nil, hostile("path %s is not allowed", quoted(path))
		}
	}
	return parts, nil
}

// splitEntry is splitPath for a path that must not be the root: the components
// of the directory, and the name in it.
func splitEntry(path string) (dir []string, name string, err error) {
	parts, err := splitPath(path)
	if err != nil {
		return nil, "", err
	}
	if len(parts) == 0 {
		return nil, "", hostile("root directory in place of an entry")
	}
	last := len(parts) - 1
	return parts[:last], parts[last], nil
}

// joinPath is the path of a name in the directory at names.
func joinPath(names []string, name string) string { return joined(strings.Join(names, "/"), name) }

// joined is the path of a name in a directory, which may be the root.
func joined(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}

const (
	dirFlags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOATIME
	beneath  = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV
)

// openBeneath opens a path of less than PATH_MAX bytes beneath the directory
// dir, following nothing and crossing no mount point (openat2(2)).
func openBeneath(dir int, path string, flags int, mode uint32) (int, error) {
	return unix.Openat2(dir, path, &unix.OpenHow{
		Flags:   uint64(flags | unix.O_NOFOLLOW | unix.O_CLOEXEC),
		Mode:    uint64(mode),
		Resolve: beneath,
	})
}

// openDir opens the directory at parts beneath root, however long the path is.
// The caller closes it.
func openDir(root int, parts []string) (int, error) {
	fd, err := openBeneath(root, ".", dirFlags, 0)
	for err == nil && len(parts) > 0 {
		n := chunk(parts)
		var next int
		next, err = openBeneath(fd, strings.Join(parts[:n], "/"), dirFlags, 0)
		unix.Close(fd)
		fd, parts = next, parts[n:]
	}
	return fd, err
}

// chunk is how many of the parts make a path that the kernel takes at once.
func chunk(parts []string) int {
	length := 0
	for i, p := range parts {
		if length += len(p) + 1; length > unix.PathMax {
			return i
		}
	}
	return len(parts)
}
