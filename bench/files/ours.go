package files

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/vzkit/vzkit/bench/hosts"
)

// cipher is that of both: the one that vzmigrate and OpenSSH's server agree on
// (see package transport/ssh), asked for from ssh too.
const cipher = "aes128-gcm@openssh.com"

// account is what `vzmigrate --json` says of a move, as far as it matters here.
type account struct {
	Live     bool    `json:"live"`
	Downtime float64 `json:"downtime_ms"`
	Total    float64 `json:"total_ms"`
	Wire     uint64  `json:"wire_bytes"`
	Phases   []phase `json:"phases"`
	Passes   []pass  `json:"passes"`
}

type phase struct {
	Name string  `json:"name"`
	MS   float64 `json:"ms"`
}

type pass struct {
	MS      float64 `json:"ms"`
	Entries uint64  `json:"entries"` // sent
	Frozen  bool    `json:"frozen"`
}

// move moves the container and keeps its private area where it was. link is
// how many bytes went between the hosts.
func (s *stage) move(ctx context.Context, from, to string) (a account, link uint64, err error) {
	return s.migrate(ctx, from, to, "-r", "no")
}

// migrate moves the container, with more arguments for vzmigrate.
func (s *stage) migrate(ctx context.Context, from, to string, args ...string) (a account, link uint64, err error) {
	if err := s.settle(); err != nil {
		return a, 0, err
	}
	argv := slices.Concat([]string{"vzmigrate", "--json"}, args, s.MigrateArgs, []string{to, ctid})
	cmd := s.On(ctx, from, argv...)
	before, err := s.linkBytes(from)
	if err != nil {
		return a, 0, err
	}
	var out bytes.Buffer
	if err := hosts.Run(cmd, &out); err != nil {
		return a, 0, err
	}
	after, err := s.linkBytes(from)
	if err != nil {
		return a, 0, err
	}
	if err := json.Unmarshal(out.Bytes(), &a); err != nil {
		return a, 0, fmt.Errorf("report of vzmigrate: %w", err)
	}
	return a, after - before, nil
}

// errNoPass is of a report that has nothing of what is measured.
var errNoPass = errors.New("vzmigrate reports too few passes over the files")

// passes are how long the passes took but for the one while the container
// stood still, which is no phase of its own. All of a stopped container's are
// here.
func (a account) passes() (ms []float64) {
	for _, p := range a.Phases {
		if p.Name == "files" {
			ms = append(ms, p.MS)
		}
	}
	return ms
}

// files is how long all of these took.
func (a account) files() (sum float64) {
	for _, ms := range a.passes() {
		sum += ms
	}
	return sum
}

// second is how long the second pass took, which may be the frozen one.
func (a account) second() (float64, error) {
	if passes := a.passes(); len(passes) > 1 {
		return passes[1], nil
	}
	frozen, err := a.frozen()
	return frozen.MS, err
}

// frozen is the first pass for which the container stood still.
func (a account) frozen() (pass, error) {
	for _, p := range a.Passes {
		if p.Frozen && a.Live {
			return p, nil
		}
	}
	return pass{}, errNoPass
}
