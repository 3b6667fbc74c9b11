package track

import (
	"bytes"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// classifier tells what mappings are. Files are looked at once: a device or a
// hugetlb file cannot be told by its name.
type classifier struct {
	shmem uint64            // device number of the kernel's own tmpfs
	files map[fileKey]class // of private mappings
}

const maxFiles = 1 << 16 // that a classifier remembers

// newClassifier finds the device of shared anonymous memory with a page of it.
func newClassifier() (*classifier, error) {
	page, err := unix.Mmap(-1, 0, PageSize, unix.PROT_READ, unix.MAP_SHARED|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, fmt.Errorf("map shared memory: %w", err)
	}
	defer unix.Munmap(page)
	text, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return nil, fmt.Errorf("read own mappings: %w", err)
	}
	c := &classifier{files: map[fileKey]class{}}
	at := addressOf(page)
	for _, v := range parseMaps(text, nil, func(*vma, []byte, []byte) class { return untracked }) {
		if v.start <= at && at < v.end {
			c.shmem = v.file.dev
		}
	}
	return c, nil
}

// special are the names of the mappings without a file that processes make.
var special = []string{"[heap]", "[stack", "[anon:"}

func (c *classifier) of(tid int, v *vma, flags, name []byte) class {
	switch {
	case flags[3] != 'p':
		return c.ofShared(v, name)
	case v.file.ino != 0:
		return c.ofFile(tid, v)
	case len(name) == 0:
		return anonymous
	}
	for _, s := range special {
		if bytes.HasPrefix(name, []byte(s)) {
			return anonymous
		}
	}
	return untracked
}

// ofShared: anonymous shared memory and memfd. System V's has a life of its own.
func (c *classifier) ofShared(v *vma, name []byte) class {
	if v.file.dev != c.shmem || v.file.ino == 0 {
		return untracked
	}
	v.memfd = bytes.HasPrefix(name, []byte("/memfd:"))
	if v.memfd || string(name) == "/dev/zero (deleted)" || bytes.HasPrefix(name, []byte("[anon_shmem:")) {
		return shared
	}
	return untracked
}

// ofFile looks at the file behind a private mapping.
func (c *classifier) ofFile(tid int, v *vma) class {
	if known, ok := c.files[v.file]; ok {
		return known
	}
	class, err := look(mapFile(tid, v))
	if err != nil {
		return fileCopy // the mapping is just going; the next round will see
	}
	if len(c.files) >= maxFiles {
		clear(c.files)
	}
	c.files[v.file] = class
	return class
}

func look(path string) (class, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return untracked, err
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(path, &fs); err != nil {
		return untracked, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || fs.Type == unix.HUGETLBFS_MAGIC {
		return untracked, nil
	}
	return fileCopy, nil
}

// mapFile is the path of the file behind a mapping (proc_pid_map_files(5)).
func mapFile(tid int, v *vma) string {
	return fmt.Sprintf("/proc/%d/map_files/%x-%x", tid, v.start, v.end)
}
