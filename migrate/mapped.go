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

// fileSet is a set of files, by device and inode.
type fileSet map[[2]uint64]bool

func (s fileSet) has(dev, ino uint64) bool { return s[[2]uint64{dev, ino}] }

// addShared adds the files that a process of the container has mapped shared
// now. A write to such a mapping changes no time stamp while its page is dirty
// already, so a file that was mapped when some pass read it belongs to the
// last pass, whatever its times say and whether or not it is still mapped.
func (s fileSet) addShared(g *cgroup.Group) error {
	pids, err := g.Procs()
	if err != nil {
		return err
	}
	for _, pid := range pids {
		if err := addMapped(pid, s); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ESRCH) {
			return err
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
