// Package procfs reads what the tools need to know of a process (proc(5)).
package procfs

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Places in /proc/PID/stat, counted from the state.
const (
	parentField = 1  // ppid
	startField  = 19 // starttime
)

// Parent is the pid of process pid's parent.
func Parent(pid int) (int, error) {
	fields, err := stat(pid)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(fields[parentField])
}

// StartTime is when process pid started, in clock ticks since boot. Together
// with the pid it names a process for good. A zombie counts as gone.
func StartTime(pid int) (uint64, error) {
	fields, err := stat(pid)
	if err != nil {
		return 0, err
	}
	if fields[0] == "Z" || fields[0] == "X" {
		return 0, fmt.Errorf("process %d is dead: %w", pid, os.ErrNotExist)
	}
	return strconv.ParseUint(fields[startField], 10, 64)
}

// stat reads the fields of /proc/PID/stat from the state on. The command name
// before them may contain anything, so they begin after its last ")".
func stat(pid int) ([]string, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil, err
	}
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(fields) <= startField {
		return nil, fmt.Errorf("process %d: stat has %d fields", pid, len(fields))
	}
	return fields, nil
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

// InnerPID is process pid's number in the innermost pid namespace that it is
// in: in a container, its pid there (NSpid of proc_pid_status(5)).
func InnerPID(pid int) (int, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(text), "\nNSpid:")
	line, _, _ := strings.Cut(rest, "\n")
	numbers := strings.Fields(line)
	if len(numbers) == 0 {
		return 0, fmt.Errorf("process %d: status has no NSpid", pid)
	}
	return strconv.Atoi(numbers[len(numbers)-1])
}

// Available is how much memory could be had without swapping, in bytes
// (MemAvailable of proc_meminfo(5)).
func Available() (uint64, error) {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		var kib uint64
		if n, _ := fmt.Sscanf(line, "MemAvailable: %d kB", &kib); n == 1 {
			return kib << 10, nil
		}
	}
	return 0, fmt.Errorf("meminfo has no MemAvailable")
}
