package describe

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"
)

// Copy is a copy of a process's smaps (proc_pid_smaps(5)) with what CRIU reads
// of it: mappings and flags, no sizes.
type Copy struct {
	PID  int
	File string // that has the copy

	maps   string   // the lines that maps has, too
	locked string   // VmLck of status
	flags  []string // of each mapping, those that count
}

// TakeCopy takes a copy into file. The kernel needs about 12 ms per GiB.
func TakeCopy(pid int, file string) (*Copy, error) {
	c := &Copy{PID: pid, File: file}
	return c, c.take()
}

func (c *Copy) take() error {
	text, err := os.ReadFile(c.proc("smaps"))
	if err != nil {
		return err
	}
	if c.locked, err = c.readLocked(); err != nil {
		return err
	}
	var short []byte
	c.maps, c.flags, short = parse(text)
	// Not replaced: the file itself is mounted where CRIU looks for it.
	if err := os.WriteFile(c.File, short, 0o600); err != nil {
		return fmt.Errorf("write copy of smaps: %w", err)
	}
	return nil
}

func (c *Copy) proc(name string) string { return fmt.Sprintf("/proc/%d/%s", c.PID, name) }

// Refresh takes the copy anew if the process, which is frozen, has other
// mappings by now or has locked or unlocked memory. Other flags that can
// change without these are Check's.
func (c *Copy) Refresh() (changed bool, err error) {
	maps, err := os.ReadFile(c.proc("maps"))
	if err != nil {
		return false, err
	}
	locked, err := c.readLocked()
	if err != nil {
		return false, err
	}
	if string(maps) == c.maps && locked == c.locked {
		return false, nil
	}
	return true, c.take()
}

// Check compares the copy with the process, which is still as it was dumped.
// It takes as long as TakeCopy.
func (c *Copy) Check() error {
	text, err := os.ReadFile(c.proc("smaps"))
	if err != nil {
		return err
	}
	maps, flags, _ := parse(text)
	if maps != c.maps || !slices.Equal(flags, c.flags) {
		return fmt.Errorf("mappings of process %d are not as they were dumped", c.PID)
	}
	return nil
}

func (c *Copy) readLocked() (string, error) {
	status, err := os.ReadFile(c.proc("status"))
	if err != nil {
		return "", err
	}
	_, rest, _ := strings.Cut(string(status), "\nVmLck:")
	locked, _, _ := strings.Cut(rest, "\n")
	return locked, nil
}

// counted are the flags that CRIU looks at (criu/proc_parse.c,
// __parse_vmflags). Others change on their own, as "sd", or by the tracker.
const counted = " gd lo nr ht dp sr rr dc dd mg hg nh wf io pf ss "

// parse takes smaps apart: the lines of mappings, the flags that count of each
// mapping, and both as CRIU is to see them.
func parse(smaps []byte) (maps string, flags []string, short []byte) {
	var m strings.Builder
	for line := range bytes.Lines(smaps) {
		switch {
		case isMapping(line):
			m.Write(line)
			short = append(short, line...)
		case bytes.HasPrefix(line, []byte("VmFlags:")):
			short = append(short, line...)
			flags = append(flags, countedFlags(string(line[len("VmFlags:"):])))
		}
	}
	return m.String(), flags, short
}

// isMapping tells the lines of mappings, which begin with an address in lower
// case, from the others, which begin with a name in upper case.
func isMapping(line []byte) bool {
	return len(line) > 0 && (line[0] >= '0' && line[0] <= '9' || line[0] >= 'a' && line[0] <= 'f')
}

func countedFlags(text string) string {
	return strings.Join(slices.DeleteFunc(strings.Fields(text), func(f string) bool {
		return !strings.Contains(counted, " "+f+" ")
	}), " ")
}
