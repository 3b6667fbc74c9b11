package downtime

import (
	"fmt"
	"slices"
	"strings"

	"github.com/vzkit/vzkit/bench/hog"
	"github.com/vzkit/vzkit/bench/hosts"
	"github.com/vzkit/vzkit/internal/fault"
)

const (
	mib = 1 << 20
	gib = 1 << 30
)

// Templates of containers.
const (
	minimal    = hosts.Minimal
	debian     = hosts.Debian
	postgresql = hosts.PostgreSQL
)

// workload is what runs in a container, and what is asked of its downtime.
type workload struct {
	name, what string
	template   string
	hog        hog.Config
	load       func(place) load // what else runs; nil is nothing
	link       int64            // bits a second between the hosts; 0 is as fast as it goes

	ofPeer       float64 // required: downtime of the peer's, at most
	wanted       float64 // milliseconds of downtime at most; 0 is none
	wantedOfPeer float64 // likewise, of the peer's; 0 is none
	wire         float64 // required: bytes sent of bytes held, at most; 0 is none
}

// small is the hog that only watches, beside what the container is about.
var small = hog.Config{Memory: mib, Content: hog.Random}

func writing(bytes uint64, rate float64, writers int) hog.Config {
	return hog.Config{Memory: bytes, Content: hog.Random, Rate: rate, Writers: writers}
}

var workloads = []workload{
	{
		name: "idle64", what: "one process, 64 MiB, idle", template: minimal,
		hog: hog.Config{Memory: 64 * mib, Content: hog.Random}, ofPeer: 1. / 4, wanted: 25,
	},
	{
		name: "write1g", what: "1 GiB, 100 MB/s random writes", template: minimal,
		hog: writing(gib, 100e6, 1), ofPeer: 1. / 20, wanted: 30, wantedOfPeer: 1. / 100,
	},
	{
		name: "write4g", what: "4 GiB, 100 MB/s random writes", template: minimal,
		hog: writing(4*gib, 100e6, 1), ofPeer: 1. / 20,
	},
	{
		name: "debian", what: "Debian container under its own init, idle", template: debian,
		hog: small, load: newDebian, ofPeer: 1. / 2, wanted: 80,
	},
	{
		name: "postgres", what: "PostgreSQL, 1 GiB shared_buffers, under pgbench", template: postgresql,
		hog: small, load: newPostgres, ofPeer: 1. / 8, wanted: 100,
	},
	{
		name: "fork50", what: "50 forked processes, 16 MiB each", template: minimal,
		hog: hog.Config{Memory: 16 * mib, Content: hog.Random, Children: 50}, ofPeer: 1. / 4, wanted: 150,
	},
	{
		name: "threads500", what: "500 threads, 1 GiB heap", template: minimal,
		hog: writing(gib, 20e6, 500), ofPeer: 1. / 4, wanted: 150,
	},
	{
		name: "wirerandom", what: "1 GiB of random data, 1 Gbit/s", template: minimal,
		hog: hog.Config{Memory: gib, Content: hog.Random}, link: 1e9, wire: 1.02,
	},
	{
		name: "wiremixed", what: "1 GiB, half zero, a quarter text, 1 Gbit/s", template: minimal,
		hog: hog.Config{Memory: gib, Content: hog.Mixed}, link: 1e9, wire: 0.35,
	},
}

// Quick are the workloads that take least time.
var Quick = []string{"idle64", "write1g"}

// Names are those of all workloads.
func Names() string {
	var names []string
	for _, w := range workloads {
		names = append(names, w.name)
	}
	return strings.Join(names, ", ")
}

// Describe lists the workloads for a help text, one a line.
func Describe() string {
	var b strings.Builder
	for _, w := range workloads {
		fmt.Fprintf(&b, "  %-11s %s\n", w.name, w.what)
	}
	return b.String()
}

func find(name string) (workload, error) {
	i := slices.IndexFunc(workloads, func(w workload) bool { return w.name == name })
	if i < 0 {
		return workload{}, fault.New(fault.BadValue, "workload %q unknown", name).WithHint("Choose from %s.", Names())
	}
	return workloads[i], nil
}

// hogArgs is the command line that runs the workload's hog.
func (w workload) hogArgs(program string) []string {
	return []string{
		program, "hog", "--memory", fmt.Sprint(w.hog.Memory), "--content", string(w.hog.Content),
		"--rate", fmt.Sprint(w.hog.Rate), "--writers", fmt.Sprint(w.hog.Writers), "--children", fmt.Sprint(w.hog.Children),
	}
}
