// Package procfs reads what the tools need to know of a process (proc(5)).
package procfs

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// startField is starttime's place in /proc/PID/stat, counted from the state.
const startField = 19

// StartTime is when process pid started, in clock ticks since boot. Together
// with the pid it names a process for good. A zombie counts as gone.
func StartTime(pid int) (uint64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The command name may contain anything, so count from its last ")".
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(fields) <= startField {
		return 0, fmt.Errorf("process %d: stat has %d fields", pid, len(fields))
	}
	if fields[0] == "Z" || fields[0] == "X" {
		return 0, fmt.Errorf("process %d is dead: %w", pid, os.ErrNotExist)
	}
	return strconv.ParseUint(fields[startField], 10, 64)
}

// RSS is how much memory process pid has in use, in bytes, shared memory
// included.
func RSS(pid int) (uint64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(text))
	if len(fields) < 2 {
		return 0, fmt.Errorf("process %d: statm has %d fields", pid, len(fields))
	}
	pages, err := strconv.ParseUint(fields[1], 10, 64)
	return pages * uint64(os.Getpagesize()), err
}
