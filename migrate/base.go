package migrate

import (
	"encoding/json"
	"os"
	"path/filepath"
	"time"

	"github.com/google/renameio/v2"
)

// measured is what the last move from this host took beside copying memory,
// in a file of the host's run directory: the next one's downtime is predicted
// from it.
type measured struct {
	BaseMS    float64 `json:"base_ms"`
	Processes int     `json:"processes"`
}

// What a move is expected to take before one has been measured here.
const (
	firstBase  = 40 * time.Millisecond
	perProcess = 4 * time.Millisecond
)

func (s *source) basePath() string { return filepath.Join(s.c.Host().Run, "downtime.json") }

// expectedBase is the part of the downtime that does not depend on memory:
// freezing, describing, restoring, deciding. About half of it goes with the
// number of processes.
func (s *source) expectedBase() time.Duration {
	pids, _ := s.cgroup.Procs()
	var m measured
	text, err := os.ReadFile(s.basePath())
	if err != nil || json.Unmarshal(text, &m) != nil || m.Processes < 1 || m.BaseMS <= 0 || m.BaseMS > 1e5 {
		return firstBase + time.Duration(len(pids))*perProcess
	}
	scale := (1 + float64(len(pids))/float64(m.Processes)) / 2
	return time.Duration(m.BaseMS * scale * float64(time.Millisecond))
}

// noteBase keeps what this move has taken for the next one.
func (s *source) noteBase(processes int, copying time.Duration) {
	m := measured{BaseMS: max(s.report.Downtime-millis(copying), 1), Processes: processes}
	if text, err := json.Marshal(m); err == nil {
		_ = renameio.WriteFile(s.basePath(), text, 0o600) // a prediction, no more
	}
}
