package treecheck

import (
	"bytes"
	"fmt"
	"maps"
	"os/exec"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Fields of a Difference that a caller may want to leave out (Without).
const (
	Atime   = "atime"
	Flags   = "flags"
	Project = "project"
)

// Difference is one thing about one path.
type Difference struct{ Path, Field, Want, Got string }

func (d Difference) String() string {
	return fmt.Sprintf("%s: %s: want %s, got %s", quoted(d.Path), d.Field, d.Want, d.Got)
}

// quoted is a path for people, of a long one the end.
func quoted(path string) string {
	const shown = 100
	if len(path) <= shown {
		return fmt.Sprintf("%q", path)
	}
	return fmt.Sprintf("…%q (%d bytes)", path[len(path)-shown:], len(path))
}

// Compare returns what got lacks, has too much or has otherwise than want, in
// the order of the paths.
func Compare(want, got Tree) []Difference {
	all := maps.Clone(want)
	maps.Copy(all, got)
	var ds differences
	for _, path := range slices.Sorted(maps.Keys(all)) {
		ds.path = path
		ds.entry(want[path], got[path])
	}
	return ds.list
}

// Without returns the differences that are in none of the fields.
func Without(ds []Difference, fields ...string) []Difference {
	return slices.DeleteFunc(slices.Clone(ds), func(d Difference) bool { return slices.Contains(fields, d.Field) })
}

type differences struct {
	path string
	list []Difference
}

// check notes a difference of one value, as text shows it.
func check[T comparable](ds *differences, field string, want, got T, text func(T) string) {
	if want != got {
		ds.list = append(ds.list, Difference{ds.path, field, text(want), text(got)})
	}
}

func plain[T any](v T) string { return fmt.Sprint(v) }

func (ds *differences) entry(want, got *Entry) {
	if want == nil || got == nil || want.Mode&unix.S_IFMT != got.Mode&unix.S_IFMT {
		check(ds, "type", want.kind(), got.kind(), plain)
		return
	}
	check(ds, "mode", want.Mode&0o7777, got.Mode&0o7777, func(m uint32) string { return fmt.Sprintf("%04o", m) })
	check(ds, "owner", [2]uint32{want.UID, want.GID}, [2]uint32{got.UID, got.GID}, plain)
	check(ds, "device", want.Rdev, got.Rdev, device)
	check(ds, "target", want.Target, got.Target, quoted)
	check(ds, "mtime", want.Mtime, got.Mtime, stamp)
	check(ds, Atime, want.Atime, got.Atime, stamp)
	check(ds, Flags, want.Flags, got.Flags, flagText)
	check(ds, Project, want.Project, got.Project, plain)
	ds.links(want, got)
	ds.xattrs(want.Xattrs, got.Xattrs)
	check(ds, "size", want.Size, got.Size, plain)
	ds.content(want.Chunks, got.Chunks)
	ds.holes(want, got)
}

func (e *Entry) kind() string {
	if e == nil {
		return "nothing"
	}
	return kinds[e.Mode&unix.S_IFMT]
}

var kinds = map[uint32]string{
	unix.S_IFREG: "file", unix.S_IFDIR: "directory", unix.S_IFLNK: "symbolic link", unix.S_IFIFO: "FIFO",
	unix.S_IFSOCK: "socket", unix.S_IFCHR: "character device", unix.S_IFBLK: "block device",
}

func device(rdev uint64) string { return fmt.Sprint(unix.Major(rdev), ":", unix.Minor(rdev)) }

func stamp(t unix.Timespec) string { return fmt.Sprintf("%d.%09d", t.Sec, t.Nsec) }

func flagText(flags uint32) string {
	var names []string
	for _, f := range flagNames {
		if flags&f.flag != 0 {
			names = append(names, f.name)
		}
	}
	return "[" + strings.Join(names, " ") + "]"
}

// links compares the names of the inode. Names outside the tree are its own
// only if the wanted tree has some too.
func (ds *differences) links(want, got *Entry) {
	check(ds, "same inode as", want.First, got.First, quoted)
	check(ds, "hard links", want.Links, got.Links, plain)
	if want.Nlink == uint64(want.Links) && got.Links == want.Links {
		check(ds, "hard links with those outside", want.Nlink, got.Nlink, plain)
	}
}

func (ds *differences) xattrs(want, got map[string]string) {
	if maps.Equal(want, got) {
		return
	}
	all := map[string]string{}
	maps.Copy(all, want)
	maps.Copy(all, got)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		check(ds, fmt.Sprintf("attribute %q", name), valueText(want, name), valueText(got, name), plain)
	}
}

func valueText(xs map[string]string, name string) string {
	if v, found := xs[name]; found {
		return fmt.Sprintf("%x (%d bytes)", v, len(v))
	}
	return "none"
}

// content tells the first chunk that differs.
func (ds *differences) content(want, got []Chunk) {
	for i := range max(len(want), len(got)) {
		w, g := chunkAt(want, i), chunkAt(got, i)
		if w == g {
			continue
		}
		at := min(w.Offset, g.Offset)
		check(ds, fmt.Sprintf("content from %d", at), chunkText(w, at), chunkText(g, at), plain)
		return
	}
}

func chunkAt(cs []Chunk, i int) Chunk {
	if i < len(cs) {
		return cs[i]
	}
	return Chunk{Offset: 1 << 62}
}

func chunkText(c Chunk, at int64) string {
	if c.Offset != at {
		return "zeros"
	}
	return fmt.Sprintf("%x", c.Sum)
}

// holes finds files that lost theirs. Which zeros are stored is up to the file
// system, so a tenth more and some blocks are allowed.
func (ds *differences) holes(want, got *Entry) {
	if w, g := total(want.Data), total(got.Data); g > w+w/10+chunkSize {
		check(ds, "bytes of data", w, g, plain)
	}
	if w, g := want.Blocks, got.Blocks; g > w+w/10+1<<20 {
		check(ds, "bytes allocated", w, g, plain)
	}
}

func total(xs []Extent) (n int64) {
	for _, x := range xs {
		n += x.End - x.Start
	}
	return n
}

// CompareByRsync lets rsync(1) compare all that it knows of, content included.
// The error holds what it would change in dst. rsync cannot follow paths beyond
// PATH_MAX.
func CompareByRsync(src, dst string) error {
	cmd := exec.Command("rsync", "-aHAXnci", "--numeric-ids", "--delete", src+"/", dst+"/")
	out, err := cmd.CombinedOutput()
	if out = bytes.TrimSpace(out); err != nil || len(out) > 0 {
		return fmt.Errorf("rsync finds differences of %q from %q: %v\n%s", dst, src, err, out)
	}
	return nil
}
