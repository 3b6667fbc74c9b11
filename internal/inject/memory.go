package inject

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Read reads memory of a task, all of b. It takes part in the task's page
// faults: pages that are not there come into being.
func (t *Task) Read(address uintptr, b []byte) error {
	return t.move("read", unix.ProcessVMReadv, address, b)
}

// Write writes memory that the task itself could write.
func (t *Task) Write(address uintptr, b []byte) error {
	return t.move("write", unix.ProcessVMWritev, address, b)
}

type vmCall func(pid int, local []unix.Iovec, remote []unix.RemoteIovec, flags uint) (int, error)

func (t *Task) move(what string, call vmCall, address uintptr, b []byte) error {
	if len(b) == 0 {
		return nil
	}
	local := []unix.Iovec{{Base: unsafe.SliceData(b), Len: uint64(len(b))}}
	n, err := call(t.tid, local, []unix.RemoteIovec{{Base: address, Len: len(b)}}, 0)
	if err == unix.ESRCH {
		err = ErrGone
	}
	if err == nil && n < len(b) {
		err = unix.EFAULT
	}
	if err != nil {
		return fmt.Errorf("%s memory of task %d at %#x: %w", what, t.tid, address, err)
	}
	return nil
}

// Scratch runs do with the address of at least a page's room that the task can
// write; what is there comes back afterwards. It is in the first private
// anonymous mapping that is writable. The process's other threads must stand
// still meanwhile.
func (t *Task) Scratch(do func(address uintptr) error) error {
	address, err := t.find(func(m mapping) bool {
		return m.inode == 0 && strings.HasPrefix(m.perms, "rw-p") && !strings.HasPrefix(m.name, "[v")
	})
	if err != nil {
		return err
	}
	old := make([]byte, os.Getpagesize())
	if err := t.Read(address, old); err != nil {
		return err
	}
	return errors.Join(do(address), t.Write(address, old))
}

// instruction finds a system call instruction: in the vDSO, or in any other
// executable mapping.
func (t *Task) instruction() (uintptr, error) {
	var found uintptr
	look := func(m mapping) bool {
		if !strings.HasPrefix(m.perms, "r-x") || m.name == "[vsyscall]" {
			return false
		}
		code := make([]byte, min(m.end-m.start, codeMax))
		if t.Read(m.start, code) != nil {
			return false
		}
		at := findInstruction(code)
		found = m.start + uintptr(max(at, 0))
		return at >= 0
	}
	_, err := t.find(func(m mapping) bool { return m.name == "[vdso]" && look(m) })
	if err != nil {
		_, err = t.find(look)
	}
	return found, err
}

// codeMax bounds what is searched of a mapping, in bytes.
const codeMax = 1 << 20

func findInstruction(code []byte) int {
	for from := 0; ; {
		at := bytes.Index(code[from:], systemCall)
		if at < 0 || (from+at)%alignment == 0 {
			if at >= 0 {
				at += from
			}
			return at
		}
		from += at + 1
	}
}

// mapping is a line of /proc/PID/maps.
type mapping struct {
	start, end uintptr
	perms      string
	inode      uint64
	name       string
}

// parse reads such a line (proc_pid_maps(5)): address perms offset dev inode
// path.
func parse(line string) (m mapping, ok bool) {
	fields := strings.Fields(line)
	if len(fields) < 5 {
		return m, false
	}
	from, to, _ := strings.Cut(fields[0], "-")
	start, err1 := strconv.ParseUint(from, 16, 64)
	end, err2 := strconv.ParseUint(to, 16, 64)
	inode, err3 := strconv.ParseUint(fields[4], 10, 64)
	m = mapping{start: uintptr(start), end: uintptr(end), perms: fields[1], inode: inode}
	if len(fields) > 5 {
		m.name = fields[5]
	}
	return m, err1 == nil && err2 == nil && err3 == nil
}

// find returns the start of the first mapping that fits.
func (t *Task) find(fits func(mapping) bool) (uintptr, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/maps", t.tid))
	if err != nil {
		return 0, fmt.Errorf("read mappings of task %d: %w", t.tid, ErrGone)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		m, ok := parse(lines.Text())
		if !ok {
			return 0, fmt.Errorf("read mappings of task %d: %q", t.tid, lines.Text())
		}
		if fits(m) {
			return m.start, nil
		}
	}
	if err := lines.Err(); err != nil {
		return 0, fmt.Errorf("read mappings of task %d: %w", t.tid, err)
	}
	return 0, fmt.Errorf("find room in task %d: %w", t.tid, unix.ENOENT)
}
