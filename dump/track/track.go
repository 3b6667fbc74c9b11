// Package track finds which memory of a container's processes has changed, so
// that it can be copied while they run: the pages written since the last look,
// again and again, and at the end, when they stand still, the rest.
//
// Memory is named by space and address. A space is the memory of one process
// (one mm of the kernel: an exec makes a new one), addressed by its virtual
// addresses, or one shared memory object, addressed by offset. Spaces are
// numbered by the tracker and never reused.
package track

import "context"

// PageSize is the unit of memory, in bytes.
const PageSize = 4096

// Shared is set in the number of a space that is a shared memory object.
const Shared = 1 << 63

// Run is a run of pages of one space.
type Run struct {
	Space   uint64
	Address uint64 // of the first page; in a shared object its offset
	Count   uint32 // pages, at least 1
	Data    []byte // Count pages, or nil: they are zero or not there
	Own     bool   // with Data: in place of a file's pages, so they count even if they are zero
}

// Sink is where pages go. It keeps nothing of Data. One call at a time.
type Sink interface {
	Pages(Run) error
}

// Tracker finds and copies changed memory. Calls come one at a time, in the
// order Round…, Settle, Finish, Close; Close may come at any time. After
// Settle or Finish the container may be thawed again and rounds go on.
type Tracker interface {
	// Name is shown to the user: "uffd-wp", "soft-dirty" or "hash".
	Name() string
	// Round passes pages written since the previous round to sink, all pages
	// at first, while the container runs. Processes come and go meanwhile.
	Round(ctx context.Context, sink Sink) (Round, error)
	// Dirty counts the pages written since the last round began, about.
	Dirty() (pages uint64)
	// Settle begins the last round, with the container frozen and before CRIU
	// touches it: it learns the processes and mappings as they will be dumped,
	// and passes on what CRIU may disturb (executable mappings).
	Settle(ctx context.Context, sink Sink) (*Layout, error)
	// Finish passes on all that is left. It may run while CRIU dumps.
	Finish(ctx context.Context, sink Sink) (Round, error)
	// Close ends tracking and leaves no trace in the tasks. Closing twice is
	// fine.
	Close() error
}

// Round tells what one round did.
type Round struct {
	Pages uint64 // passed on with content
	Zero  uint64 // passed on as zero
}

// Layout is whose memory the spaces are, when the container is frozen.
type Layout struct {
	Processes []Process
	Objects   []Object
}

// Process is one process whose memory the tracker has.
type Process struct {
	PID    int // on this host
	VPID   int // in the container: the innermost of its pids
	Space  uint64
	Ranges []Range // what the tracker has taken, ascending: nobody else needs to read it
}

// Range is [Start, End) of virtual addresses.
type Range struct{ Start, End uint64 }

// Object is one shared memory object that the tracker has.
type Object struct {
	Inode uint64 // on its file system, as in /proc/PID/maps
	Space uint64 // with Shared set
	Size  uint64 // bytes, a multiple of PageSize
}
