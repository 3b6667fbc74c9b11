package files

import (
	"context"
	"fmt"

	"github.com/vzkit/vzkit/bench/hosts"
)

// vzkit is the mover that all this is about.
const vzkit = "vzkit"

// Run is one transfer by one mover.
type Run struct {
	Case    string  `json:"case"`
	Mover   string  `json:"mover"` // vzkit or rsync
	Number  int     `json:"number"`
	Files   int     `json:"files"`         // generated ones in the tree
	Content int64   `json:"content_bytes"` // of the tree's files, where that matters
	MS      float64 `json:"ms"`            // of the passes that the case is about; all of rsync's time
	Total   float64 `json:"total_ms"`      // all of the move
	Link    uint64  `json:"link_bytes"`    // between the hosts, both ways, for all of the move
	Wire    uint64  `json:"wire_bytes"`    // by the mover's own account
	Disk    float64 `json:"disk_ms"`       // of a copy of the old tree by cp and sync at the destination
	SrcPeak uint64  `json:"src_peak"`      // resident memory of the mover's processes
	DstPeak uint64  `json:"dst_peak"`

	Downtime float64 `json:"downtime_ms"` // by vzmigrate's own account
	Outside  float64 `json:"outside_ms"`  // as a client saw it, where one watched
}

func (r *Run) took(a account, ms float64, link uint64) {
	r.MS, r.Total, r.Link, r.Wire, r.Downtime = ms, a.Total, link, a.Wire, a.Downtime
}

func (r *Run) synced(s synced) { r.MS, r.Total, r.Link, r.Wire = s.ms, s.ms, s.link, s.wire }

// String is the line that tells how a run goes.
func (r Run) String() string {
	line := fmt.Sprintf("%s %s %d: %.1f ms", r.Case, r.Mover, r.Number, r.MS)
	if r.Files > 0 {
		line += fmt.Sprintf(", %d files", r.Files)
	}
	if r.SrcPeak > 0 {
		line += fmt.Sprintf(", memory %.1f and %.1f MiB", float64(r.SrcPeak)/mib, float64(r.DstPeak)/mib)
	}
	if r.Outside > 0 {
		line += fmt.Sprintf(", downtime %.1f ms, outside %.1f ms", r.Downtime, r.Outside)
	}
	return line + fmt.Sprintf(", %.2f MiB, whole %.1f s", float64(r.Link)/mib, r.Total/1e3)
}

// warmth is the memory that everybody finds in use already, in bytes: for the
// largest file, three times: as it was, changed, and arrived.
const warmth = 12 << 30

// turns lets ours go first in each odd run, the peer in each even one.
func turns(n int, ours, peers func() ([]Run, error)) (all []Run, err error) {
	order := []func() ([]Run, error){ours, peers}
	if n%2 == 0 {
		order[0], order[1] = peers, ours
	}
	for _, one := range order {
		if err := hosts.Warm(warmth); err != nil {
			return nil, err
		}
		runs, err := one()
		if err != nil {
			return nil, err
		}
		all = append(all, runs...)
	}
	return all, nil
}

// arrived checks what came to beta, but for some files, if the container
// runs there only what was generated, and gives it back.
func (s *stage) arrived(ctx context.Context, but []string) error {
	if err := s.halt(ctx); err != nil {
		return err
	}
	src, dst := s.on(hosts.Alpha, private+"/"+within), s.on(hosts.Beta, private+"/"+within)
	if err := same(ctx, src, dst, but); err != nil {
		return err
	}
	return s.giveBack(ctx)
}

// fresh lets rsync copy the private area to a directory of beta that is empty.
func (s *stage) fresh(ctx context.Context) (synced, error) {
	if err := s.dropCopy(ctx); err != nil {
		return synced{}, err
	}
	if err := s.Sh(ctx, hosts.Beta, "mkdir COPIED", "COPIED", copied); err != nil {
		return synced{}, err
	}
	return s.again(ctx)
}

// again lets rsync copy what changed since, and checks it.
func (s *stage) again(ctx context.Context) (synced, error) {
	r, err := s.rsync(ctx, hosts.Alpha, hosts.Beta)
	if err != nil {
		return r, fmt.Errorf("%s: %w", peer, err)
	}
	if err := same(ctx, s.on(hosts.Alpha, private), s.on(hosts.Beta, copied), nil); err != nil {
		return r, fmt.Errorf("%s: %w", peer, err)
	}
	return r, nil
}

func (s *stage) dropCopy(ctx context.Context) error {
	return s.Sh(ctx, hosts.Beta, "rm -rf COPIED", "COPIED", copied)
}
