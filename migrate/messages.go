package migrate

import (
	"regexp"

	"github.com/vzkit/vzkit/internal/fault"
)

// Offer is the payload of transport.TypeOffer: what the source wants to move.
type Offer struct {
	ID     string `json:"id"` // of this migration, a UUID
	CTID   uint32 `json:"ctid"`
	Config string `json:"config"` // text of CTID.conf
	Live   bool   `json:"live"`   // processes come too
	Memory uint64 `json:"memory"` // bytes in use by the processes
	Disk   uint64 `json:"disk"`   // bytes allocated by the private area
	Inodes uint64 `json:"inodes"`
	Criu   int    `json:"criu"` // version of the source's CRIU
}

// Attach is the payload of transport.TypeAttach.
type Attach struct {
	ID   string `json:"id"`
	CTID uint32 `json:"ctid"`
}

// MemoryEnd is the payload of transport.TypeMemoryEnd: what must have come.
type MemoryEnd struct {
	Images int    `json:"images"`
	Pages  uint64 `json:"pages"` // with content
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
