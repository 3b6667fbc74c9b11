package dump

import (
	"debug/elf"
	"fmt"
	"os"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/vzkit/vzkit/internal/criu"
	"github.com/vzkit/vzkit/internal/fault"
)

// Mode is a way to deal with memory that a tracker takes.
type Mode string

const (
	// Described keeps CRIU from seeing it (package describe): the dump takes
	// as long for much memory as for little.
	Described Mode = "described"
	// Stock is CRIU's lazy dump: CRIU maps private memory into pipes, some
	// 0.1 s per GiB, and copies none of it. Shared memory it copies.
	Stock Mode = "stock"
	// Copied has CRIU copy it like all other memory. Nothing is left to a
	// tracker.
	Copied Mode = "copied"
)

// Modes are all modes, best first.
var Modes = []Mode{Described, Stock, Copied}

// Choose returns mode if it can be had with CRIU at path, or the best one for
// "". The reason says why not a better one, "" for the best.
func Choose(mode Mode, path string) (chosen Mode, reason string, err error) {
	if mode != "" && !slices.Contains(Modes, mode) {
		return "", "", fault.New(fault.Usage, "no dump mode %q", mode)
	}
	lack := ""
	if mode == Described || mode == "" {
		lack = undescribed(path)
	}
	switch {
	case mode == "" && lack == "":
		return Described, "", nil
	case mode == "":
		return Stock, lack, nil
	case lack != "":
		return "", "", fault.New(fault.NoEngine, "dump mode %q: %s", mode, lack)
	}
	return mode, "", nil
}

// undescribed says what described dumps lack, "" if nothing.
func undescribed(path string) string {
	if err := scans(); err != nil {
		return fmt.Sprintf("the kernel has no PAGEMAP_SCAN: %v", err)
	}
	version, err := criu.Version(path)
	if err != nil {
		return err.Error()
	}
	if version < scanSince {
		return fmt.Sprintf("criu %d.%d asks no PAGEMAP_SCAN", version/10000, version/100%100)
	}
	f, err := elf.Open(path)
	if err != nil {
		return fmt.Sprintf("criu is no program: %v", err)
	}
	defer f.Close()
	symbols, err := f.ImportedSymbols()
	if err != nil || !slices.ContainsFunc(symbols, func(s elf.ImportedSymbol) bool { return s.Name == "ioctl" }) {
		return "criu does not use a shared C library"
	}
	return ""
}

// scanSince is the first version of CRIU that finds pages with PAGEMAP_SCAN.
const scanSince = 40000

// scans makes the smallest scan there is.
func scans() error {
	f, err := os.Open("/proc/self/pagemap")
	if err != nil {
		return err
	}
	defer f.Close()
	arg := [12]uint64{0: 96}
	const request = 0xc0606610
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), request, uintptr(unsafe.Pointer(&arg))); errno != 0 {
		return errno
	}
	return nil
}
