package track

import (
	"fmt"
	"slices"

	"github.com/vzkit/vzkit/internal/fault"
)

// The trackers, best first.
const (
	UffdWP    = "uffd-wp"    // write protection by userfaultfd(2); Linux 6.7 and later
	SoftDirty = "soft-dirty" // /proc/PID/clear_refs; stops each process while it looks
	Hash      = "hash"       // reads everything every time; works everywhere
)

// Kinds are the names of all trackers, best first.
var Kinds = []string{UffdWP, SoftDirty, Hash}

// Options say what to track.
type Options struct {
	// Pids lists the processes of the container, by their pids on this host.
	Pids func() ([]int, error)
}

// Open starts a tracker of a kind, or with "auto" the best that works here.
// why tells what is wrong with the better ones, if anything. Processes are
// found, and first touched, by the first round.
func Open(kind string, o Options) (t Tracker, why string, err error) {
	if kind == "auto" {
		kind, why = Probe()
	} else if !slices.Contains(Kinds, kind) {
		return nil, "", fault.New(fault.BadValue, "no tracker %q", kind)
	} else if err := probe(kind); err != nil {
		return nil, "", fault.New(fault.NoEngine, "tracker %q does not work here: %w", kind, err)
	}
	t, err = newTracker(kind, o)
	return t, why, err
}

// Probe finds the best tracker by trying, and tells why it is not a better one.
func Probe() (best, why string) {
	for _, kind := range Kinds {
		err := probe(kind)
		if err == nil {
			return kind, why
		}
		if why != "" {
			why += "; "
		}
		why += fmt.Sprintf("no %s: %v", kind, err)
	}
	return Hash, why
}
