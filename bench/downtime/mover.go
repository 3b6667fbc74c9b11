package downtime

import (
	"context"
	"os/exec"
)

// mover is a way of running a workload and moving it.
type mover interface {
	name() string
	// start starts the container and the hog in it on alpha.
	start(context.Context, workload) error
	// move moves it and returns what the mover itself says of that.
	move(ctx context.Context, from, to string) (account, error)
	// exec is a shell command in the container, on the host where it is.
	exec(ctx context.Context, host, command string) *exec.Cmd
	// stop removes what start made, or as much of it as there is.
	stop(context.Context) error
}

// account is what a mover says of a move. What it does not say is 0.
type account struct {
	Downtime float64  `json:"downtime_ms"`
	Total    float64  `json:"total_ms"`
	Fill     *float64 `json:"fill_ms"` // from the resume until all pages are in place
	Wire     uint64   `json:"wire_bytes"`
	Memory   uint64   `json:"memory_bytes"`
	Tracker  string   `json:"tracker"`
}
