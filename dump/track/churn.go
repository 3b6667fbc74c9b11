package track

import (
	"bytes"
	"fmt"
	"os"
	"strings"
)

// census knows which pids were given out. Writes to shared memory are noted in
// the page tables of who wrote; a process that comes, writes and goes between
// two looks takes the notes along. Every process of a container has a pid on
// this host, too, and they are given out in order.
type census struct {
	last  int  // pid that was given out last, at the last look
	known bool // there was one
}

const maxNewPids = 4096 // that are looked at one by one

// look tells whether a process of the container may have come, and perhaps gone,
// since the last look. pids lists the container's, later than now. If nobody
// wants to know, it does not go through them.
func (c *census) look(now int, pids map[int]bool, asked bool) (unseen bool) {
	before, known := c.last, c.known
	c.last, c.known = now, now > 0
	if !asked || !known || !c.known || now < before || now-before > maxNewPids {
		return true
	}
	for pid := before + 1; pid <= now; pid++ {
		if pids[pid] || !running(pid) {
			return true
		}
	}
	return false
}

// running tells whether a pid is that of a process or thread, and no zombie.
func running(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	rest := stat[bytes.LastIndexByte(stat, ')')+1:] // " S …"
	return len(rest) > 1 && rest[1] != 'Z' && rest[1] != 'X'
}

// lastPid reads the pid that was given out last (proc_loadavg(5)), 0 if it
// cannot be known.
func lastPid() (pid int) {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 0
	}
	all := strings.Fields(string(text))
	if len(all) < 5 {
		return 0
	}
	if _, err := fmt.Sscan(all[4], &pid); err != nil {
		return 0
	}
	return pid
}
