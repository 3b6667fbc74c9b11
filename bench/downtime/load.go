package downtime

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/vzkit/vzkit/bench/hosts"
)

// place is where a load runs.
type place struct {
	rig   *rig
	mover mover
}

// load is what runs in a container beside the hog.
type load interface {
	// start starts it, on alpha, and waits until it is what is to be measured.
	start(context.Context) error
	// check tells whether anything of it was lost.
	check(ctx context.Context, host string) error
	stop()
}

// ask runs a shell command in the container and returns what it prints.
func (p place) ask(ctx context.Context, host, command string) (string, error) {
	var out bytes.Buffer
	err := hosts.Run(p.mover.exec(ctx, host, command), &out)
	return strings.TrimSpace(out.String()), err
}

// listProcesses prints a line "PID NAME" for each of the container's
// processes. Some of them are the listing's own.
const listProcesses = `cd /proc; for p in [0-9]*; do read -r name <$p/comm && echo $p $name; done 2>/dev/null; true`

func (p place) processes(ctx context.Context, host string) ([]string, error) {
	text, err := p.ask(ctx, host, listProcesses)
	return strings.Split(text, "\n"), err
}

// debianLoad is Debian's services, which do nothing.
type debianLoad struct {
	place
	stay []string // processes that are there for good
}

func newDebian(p place) load { return &debianLoad{place: p} }

// settleIn is how many seconds a system may take to boot.
const settleIn = 30

// start waits until the same processes are there for a second.
func (d *debianLoad) start(ctx context.Context) error {
	var last []string
	for range settleIn {
		now, err := d.processes(ctx, alpha)
		if err != nil {
			return err
		}
		stay := both(last, now)
		if slices.Equal(stay, d.stay) && strings.Contains(strings.Join(stay, " "), "redis") {
			return nil
		}
		d.stay, last = stay, now
		time.Sleep(time.Second)
	}
	return fmt.Errorf("container still busy, with %q", d.stay)
}

// check checks that the processes are those that they were.
func (d *debianLoad) check(ctx context.Context, host string) error {
	now, err := d.processes(ctx, host)
	if err == nil && !slices.Equal(both(d.stay, now), d.stay) {
		err = fmt.Errorf("processes are %q, were %q", now, d.stay)
	}
	return err
}

// both are the elements of a that are in b too.
func both(a, b []string) (some []string) {
	for _, x := range a {
		if slices.Contains(b, x) {
			some = append(some, x)
		}
	}
	return some
}

func (d *debianLoad) stop() {}
