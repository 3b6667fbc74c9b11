package pager

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// mapping is a private mapping of a process.
type mapping struct {
	start, end uint64
	anonymous  bool
}

// privateMappings lists them from /proc/PID/maps (proc_pid_maps(5)), without
// those that the kernel makes itself.
func privateMappings(pid int) ([]mapping, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return nil, fmt.Errorf("read mappings of process %d: %w", pid, err)
	}
	var found []mapping
	for line := range bytes.Lines(text) {
		m, private, err := parseMapping(string(line))
		if err != nil {
			return nil, fmt.Errorf("read mappings of process %d: %w", pid, err)
		}
		if private {
			found = append(found, m)
		}
	}
	return found, nil
}

func parseMapping(line string) (m mapping, private bool, err error) {
	fields := strings.Fields(line)
	if len(fields) < 5 {
		return m, false, fmt.Errorf("line %q", line)
	}
	from, to, _ := strings.Cut(fields[0], "-")
	if m.start, err = strconv.ParseUint(from, 16, 64); err != nil {
		return m, false, fmt.Errorf("line %q: %w", line, err)
	}
	if m.end, err = strconv.ParseUint(to, 16, 64); err != nil {
		return m, false, fmt.Errorf("line %q: %w", line, err)
	}
	m.anonymous = fields[4] == "0"
	return m, strings.HasSuffix(fields[1], "p") && (len(fields) < 6 || !kernels(fields[5])), nil
}

// kernels tells whether a mapping of that name is the kernel's own.
func kernels(name string) bool {
	return strings.HasPrefix(name, "[v") || name == "[uprobes]" || name == "[sigpage]"
}

// Flags of PAGEMAP_SCAN (linux/fs.h).
const (
	ioPagemapScan = 0xc0606610
	pagePresent   = 1 << 3
	pageSwapped   = 1 << 4
	regionsMax    = 512
)

// pagesThere lists the runs of pages in [start, end) that a process has.
func pagesThere(pagemap *os.File, start, end uint64) (found []segment, err error) {
	regions := make([]struct{ start, end, categories uint64 }, regionsMax)
	for start < end {
		arg := struct {
			size, flags, start, end, walkEnd, vec, vecLen, maxPages uint64
			inverted, categoryMask, categoryAnyOf, categoryReturn   uint64
		}{
			start: start, end: end, vec: uint64(uintptr(unsafe.Pointer(&regions[0]))), vecLen: regionsMax,
			categoryAnyOf: pagePresent | pageSwapped, categoryReturn: pagePresent,
		}
		arg.size = uint64(unsafe.Sizeof(arg))
		n, _, errno := unix.Syscall(unix.SYS_IOCTL, pagemap.Fd(), ioPagemapScan, uintptr(unsafe.Pointer(&arg)))
		if errno != 0 {
			return nil, fmt.Errorf("scan pagemap: %w", errno)
		}
		for _, r := range regions[:n] {
			found = append(found, segment{r.start, r.end, r.start})
		}
		if n < regionsMax { // that is all, whatever walkEnd is (see dump/track)
			break
		}
		start = max(arg.walkEnd, regions[n-1].end)
	}
	return found, nil
}
