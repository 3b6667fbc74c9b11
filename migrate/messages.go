package migrate

import (
	"regexp"

	"github.com/vzkit/vzkit/internal/fault"
)

// Offer is the payload of transport.TypeOffer: what the source wants to move.
type Offer struct {
	ID      string `json:"id"` // of this migration, a UUID
	CTID    uint32 `json:"ctid"`
	Config  string `json:"config"` // text of CTID.conf
	Live    bool   `json:"live"`   // processes come too
	Memory  uint64 `json:"memory"` // bytes in use by the processes
	Disk    uint64 `json:"disk"`   // bytes allocated by the private area
	Inodes  uint64 `json:"inodes"`
	Criu    int    `json:"criu"`     // version of the source's CRIU
	Lossy   bool   `json:"lossy"`    // what the destination's file system cannot keep is left out
	Streams int    `json:"streams"`  // connections that memory will come on
	Layout  string `json:"layout"`   // that the private area is to have; "" is the config's
	KeepDst bool   `json:"keep_dst"` // keep files that have come if the move fails

	Image *ImageOffer `json:"image,omitempty"` // nil: there is none, or it cannot be sent as it is
}

// Attach is the payload of transport.TypeAttach.
type Attach struct {
	ID   string `json:"id"`
	CTID uint32 `json:"ctid"`
}

// RoundDone is the payload of transport.TypeRoundDone: all pages of a round of
// pre-copy have arrived.
type RoundDone struct {
	Round uint64 `json:"round"`
}

// Layout is the payload of transport.TypeLayout: whose memory the spaces are
// that pages came for. One that is too long for a frame comes in parts.
type Layout struct {
	Processes []SpaceOf `json:"processes,omitempty"` // by pid in the container
	Objects   []SpaceOf `json:"objects,omitempty"`   // by inode number at the source
}

// SpaceOf says which space a process or shared memory object has.
type SpaceOf struct {
	ID    uint64 `json:"id"`
	Space uint64 `json:"space"`
	Size  uint64 `json:"size,omitempty"` // of an object, in bytes
}

// Settled is the payload of transport.TypeSettled.
type Settled struct {
	Fill  float64 `json:"fill_ms"` // how long it took until all memory was in place
	Steps []Step  `json:"steps"`   // of the standstill, at the destination
}

// MemoryEnd is the payload of transport.TypeMemoryEnd: what must have come.
type MemoryEnd struct {
	Images int    `json:"images"`
	Pages  uint64 `json:"pages"`  // with content
	Mark   uint64 `json:"mark"`   // of tracked memory, on each of its streams
	Groups bool   `json:"groups"` // the images describe cgroups
}

var uuids = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

// checkID refuses an id that could not be a migration's: it becomes part of
// file names.
func checkID(id string) error {
	if !uuids.MatchString(id) {
		return fault.New(fault.Protocol, "migration id %q is not a UUID", id)
	}
	return nil
}
