package migrate

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/vzkit/vzkit/lifecycle/cgroup"
)

// fileSet is a set of files, by device and inode, that may be written without
// anybody being told: those open for writing, with true those mapped shared.
type fileSet map[[2]uint64]bool

// addShared adds the files that a process of the container has mapped shared
// now. A write to such a mapping changes no time stamp while its page is dirty
// already, so a file that was mapped when some pass read it belongs to the
// last pass, whatever its times say and whether or not it is still mapped.
func (s fileSet) addShared(g *cgroup.Group) error { return s.add(g, addMapped) }

// addOpen adds the files that are open for writing now: what io_submit(2)
// writes is not reported while they are.
func (s fileSet) addOpen(g *cgroup.Group) error { return s.add(g, addOpen) }

func (s fileSet) add(g *cgroup.Group, of func(pid int, found fileSet) error) error {
	pids, err := g.Procs()
	if err != nil {
		return err
	}
	for _, pid := range pids {
		if err := of(pid, s); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ESRCH) {
			return err
		}
	}
	return nil
}

// addOpen looks at the descriptors of a process. The mode of their links tells
// whether they can be written to (proc_pid_fd(5)).
func addOpen(pid int, found fileSet) error {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	names, err := d.Readdirnames(0)
	if err != nil {
		return err
	}
	for _, name := range names {
		var link, file unix.Stat_t
		if unix.Fstatat(int(d.Fd()), name, &link, unix.AT_SYMLINK_NOFOLLOW) != nil || link.Mode&0o200 == 0 {
			continue
		}
		if unix.Fstatat(int(d.Fd()), name, &file, 0) == nil && file.Mode&unix.S_IFMT == unix.S_IFREG {
			if key := [2]uint64{file.Dev, file.Ino}; !found[key] {
				found[key] = false
			}
		}
	}
	return nil
}

// addMapped reads /proc/PID/maps, whose lines are "range perms offset dev
// inode path" (proc(5)). The numbers that stat(2) gives for a file may be
// others: those are asked for through /proc/PID/map_files.
func addMapped(pid int, found fileSet) error {
	f, err := os.Open(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		field := strings.Fields(lines.Text())
		if len(field) < 5 || !strings.HasSuffix(field[1], "s") || field[4] == "0" {
			continue
		}
		var start, end uint64
		if _, err := fmt.Sscanf(field[0], "%x-%x", &start, &end); err != nil {
			return fmt.Errorf("read maps of process %d: %w", pid, err)
		}
		var st unix.Stat_t
		err := unix.Stat(fmt.Sprintf("/proc/%d/map_files/%x-%x", pid, start, end), &st)
		if errors.Is(err, unix.ENOENT) { // unmapped meanwhile, or shared memory without a file
			continue
		}
		if err != nil {
			return fmt.Errorf("look at mapping %s of process %d: %w", field[0], pid, err)
		}
		found[[2]uint64{st.Dev, st.Ino}] = true
	}
	return lines.Err()
}
