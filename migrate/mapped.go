package migrate

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/vzkit/vzkit/lifecycle/cgroup"
)

// mappedWritable lists the files, by device and inode, that a process of the
// frozen container has mapped shared and writable. Writes to such a mapping
// change no time stamp once a page is dirty, so these files belong to the
// last pass whatever their times say.
func mappedWritable(g *cgroup.Group) (map[[2]uint64]bool, error) {
	pids, err := g.Procs()
	if err != nil {
		return nil, err
	}
	found := map[[2]uint64]bool{}
	for _, pid := range pids {
		if err := addMapped(pid, found); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	return found, nil
}

// addMapped reads /proc/PID/maps, whose lines are "range perms offset dev
// inode path" (proc(5)).
func addMapped(pid int, found map[[2]uint64]bool) error {
	f, err := os.Open(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		field := strings.Fields(lines.Text())
		if len(field) < 5 || !strings.HasPrefix(field[1], "rw") || field[1][3] != 's' || field[4] == "0" {
			continue
		}
		var major, minor uint32
		if _, err := fmt.Sscanf(field[3], "%x:%x", &major, &minor); err != nil {
			return fmt.Errorf("read maps of process %d: %w", pid, err)
		}
		ino, err := strconv.ParseUint(field[4], 10, 64)
		if err != nil {
			return fmt.Errorf("read maps of process %d: %w", pid, err)
		}
		found[[2]uint64{unix.Mkdev(major, minor), ino}] = true
	}
	return lines.Err()
}
