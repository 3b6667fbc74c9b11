package migrate

import (
	"fmt"
	"strings"
)

// Event is what a running migration tells whoever watches it. It is also one
// line of the stream that a remote source writes (see Serve).
type Event struct {
	Kind   string  `json:"event"`            // one of the constants below
	Phase  string  `json:"phase,omitempty"`  // of Progress and Done
	Millis float64 `json:"ms,omitempty"`     // of Done
	Bytes  uint64  `json:"bytes,omitempty"`  // of Done: moved; of Progress: so far
	Total  uint64  `json:"total,omitempty"`  // of Progress: expected, 0 if unknown
	Text   string  `json:"text,omitempty"`   // of Note and Failed; of Done: what moved
	Round  *Round  `json:"round,omitempty"`  // of Rounded
	Report *Report `json:"report,omitempty"` // of Finished
	Fault  uint16  `json:"fault,omitempty"`  // of Failed: a fault.Kind
	Hint   string  `json:"hint,omitempty"`   // of Failed
}

// Kinds of events.
const (
	Progress = "progress" // a phase goes on
	Done     = "done"     // a phase has ended
	Rounded  = "round"    // a round of pre-copy has ended
	Note     = "note"     // something the user should know
	Finished = "finished" // all is well; the last event
	Failed   = "failed"   // the last event
)

// Phase is how long one part of a migration took and what it moved.
type Phase struct {
	Name  string  `json:"name"`
	MS    float64 `json:"ms"`
	Bytes uint64  `json:"bytes"`
}

// Report is the outcome of a migration; its JSON form is described by
// docs/vzmigrate.schema.json. Times are the source's clock.
type Report struct {
	CTID        uint32  `json:"ctid"`
	Source      string  `json:"src"`
	Destination string  `json:"dst"`
	Live        bool    `json:"live"`
	Downtime    float64 `json:"downtime_ms"` // from the held network to the news that the container runs
	Phases      []Phase `json:"phases"`
	Total       float64 `json:"total_ms"`
	WireBytes   uint64  `json:"wire_bytes"`   // sent, after compression
	MemoryBytes uint64  `json:"memory_bytes"` // of the container's pages
	Tracker     string  `json:"tracker"`
	Dump        string  `json:"dump"`   // how the frozen container was dumped; "" if it was not
	Way         string  `json:"way"`    // in which the files went: byFiles or byBlocks
	Passes      []Pass  `json:"passes"` // over the files
	Rounds      []Round `json:"rounds"`
	LastPages   uint64  `json:"last_pages"` // sent while it stood still
	Steps       []Step  `json:"steps"`      // where the downtime went, in order
	Fill        float64 `json:"fill_ms"`    // from its start at the destination until all of its memory was in place
}

// Pass is one pass over the files, or over the blocks of their image.
type Pass struct {
	MS      float64 `json:"ms"`
	Looked  uint64  `json:"looked"`  // entries, or blocks, looked at
	Entries uint64  `json:"entries"` // sent; blocks with content
	Bytes   uint64  `json:"bytes"`   // of content
	Deleted uint64  `json:"deleted"` // paths; blocks that became holes
	Frozen  bool    `json:"frozen"`
	Tracked bool    `json:"tracked"` // only what was seen to change was looked at
}

// Round is one pre-copy round of memory.
type Round struct {
	MS        float64  `json:"ms"`
	Pages     uint64   `json:"pages"`        // with content
	Zero      uint64   `json:"zero"`         // pages that are zero or gone
	WireBytes uint64   `json:"wire_bytes"`   // for them
	Dirty     uint64   `json:"dirty"`        // left over: written since the round began
	Predicted float64  `json:"predicted_ms"` // downtime, if the container were frozen then
	Decision  Decision `json:"decision"`
}

// The phases of the downtime, in order. They follow one another without a
// gap, so their sum is the downtime.
const (
	phaseMemory  = "memory" // before it
	phaseFreeze  = "freeze"
	phaseDump    = "dump"
	phaseSend    = "send"
	phaseRestore = "restore"
)

// Summary is the line that ends a migration:
// "downtime 231 ms (freeze 3, dump 101, send 22, restore 105), total 3.4 s, 41.2 MiB sent".
func (r *Report) Summary() string {
	var b strings.Builder
	if r.Live {
		fmt.Fprintf(&b, "downtime %.0f ms (", r.Downtime)
		for i, name := range []string{phaseFreeze, phaseDump, phaseSend, phaseRestore} {
			if i > 0 {
				b.WriteString(", ")
			}
			fmt.Fprintf(&b, "%s %.0f", name, r.phase(name))
		}
		b.WriteString("), ")
	}
	fmt.Fprintf(&b, "total %.1f s, %.1f MiB sent", r.Total/1e3, float64(r.WireBytes)/(1<<20))
	return b.String()
}

func (r *Report) phase(name string) (ms float64) {
	for _, p := range r.Phases {
		if p.Name == name {
			ms += p.MS
		}
	}
	return ms
}
