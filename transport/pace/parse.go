package pace

import (
	"math"
	"strconv"
	"strings"

	"github.com/vzkit/vzkit/internal/fault"
)

// minLimit is below anything that a transfer could end with.
const minLimit = 1 << 10

// suffixes are those of rsync(1), the longer before the shorter. Without one a
// value means bytes, as in vzmigrate(8) of OpenVZ.
var suffixes = []struct {
	text string
	unit float64
}{
	{"kib", 1 << 10}, {"mib", 1 << 20}, {"gib", 1 << 30},
	{"kb", 1e3}, {"mb", 1e6}, {"gb", 1e9},
	{"k", 1 << 10}, {"m", 1 << 20}, {"g", 1 << 30},
	{"", 1},
}

// ParseLimit reads a limit from a command line: bytes per second, which may
// have a fraction and a suffix: k, M, G or KiB, MiB, GiB for powers of 1024, kB,
// MB, GB for powers of 1000, in either case. 0 is no limit.
func ParseLimit(s string) (bytesPerSecond int64, err error) {
	number, unit := cutSuffix(s)
	f, err := strconv.ParseFloat(number, 64)
	if err != nil || strings.Trim(number, "0123456789.") != "" {
		return 0, badLimit(s, "is no number of bytes per second")
	}
	switch f *= unit; {
	case f == 0:
		return 0, nil
	case f < minLimit:
		return 0, badLimit(s, "is below 1 KiB per second")
	case f >= math.MaxInt64:
		return 0, badLimit(s, "is too large")
	}
	return int64(f), nil
}

func cutSuffix(s string) (number string, unit float64) {
	lower := strings.ToLower(s)
	for _, x := range suffixes {
		if before, found := strings.CutSuffix(lower, x.text); found {
			return before, x.unit
		}
	}
	return lower, 1
}

func badLimit(s, why string) error {
	return fault.New(fault.BadValue, "limit %q %s", s, why).
		WithHint("Give bytes per second, with k, M or G for powers of 1024, for example 10M; 0 is no limit.")
}
