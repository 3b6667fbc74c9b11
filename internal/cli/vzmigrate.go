package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/internal/version"
	"github.com/vzkit/vzkit/lifecycle"
	"github.com/vzkit/vzkit/migrate"
	"github.com/vzkit/vzkit/transport"
	"github.com/vzkit/vzkit/transport/memory"
	"github.com/vzkit/vzkit/transport/pace"
	"github.com/vzkit/vzkit/transport/ssh"
)

type vzmigrate struct {
	program
	host          *lifecycle.Host
	live          bool
	removeArea    string
	keepDst       bool
	layout        string
	memory        migrate.MemoryOptions
	files         migrate.FileOptions
	rate          string // of files
	deltaCache    string
	asJSON, quiet bool
	times         bool
	sshConfig     string
	receive       bool
	serve         bool
}

// Vzmigrate is the program vzmigrate(8) without its process.
func Vzmigrate(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	v := &vzmigrate{
		program: program{name: "vzmigrate", stdin: stdin, stdout: stdout, stderr: stderr, code: fault.MigrateCode},
		host:    lifecycle.Local(),
		memory:  migrate.DefaultMemory,
	}
	return v.run(ctx, v.root(), args)
}

func (v *vzmigrate) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "vzmigrate [flags] [SOURCE] DESTINATION CTID|NAME",
		Short: "Move a container to another host while it runs",
		Long: `Move a container to another host over SSH. One that runs is moved running: its
processes, memory and open TCP connections come along. One that is stopped is
moved stopped.

SOURCE and DESTINATION are what ssh would connect to: a name, an alias of
ssh_config, user@host. Without SOURCE the container is on this host. Both need
vzkit on root's PATH, and the source must reach the destination; it logs in
there with this machine's agent and keys.

Memory is sent in rounds while the container runs, each with the pages written
during the one before. The container is frozen when that is predicted to take
less than --downtime-limit, when further rounds would not help, or after
--max-rounds.

Exit status: 0 moved, 1 wrong command line, 2 --live and the container does not
run, 3 system, 4 no connection, 6 files not copied, 7 not restored, 8 not
checkpointed, 9 exists at the destination, 10 no such container, 12 address in
use at the destination, 14 no working CRIU, 20 locked, 22 handed over but not
confirmed yet, 25 interrupted, 26 protocol error, 31 no space, 33 memory
changes faster than it can be sent (--max-time), 34 source and destination are
the same. Unless it is 0 or 22, a container that ran runs on at the source.`,
		Version: version.String,
		Args:    v.checkArgs,
		RunE:    func(cmd *cobra.Command, args []string) error { return v.run1(cmd.Context(), cmd, args) },
	}
	v.flags(root.Flags())
	return root
}

func (v *vzmigrate) flags(f *pflag.FlagSet) {
	f.BoolVar(&v.live, "live", false, "refuse a container that does not run")
	f.BoolVar(&v.live, "online", false, "same as --live")
	f.StringVarP(&v.removeArea, "remove-area", "r", "yes", "remove the private area at the source: yes or no")
	f.BoolVar(&v.keepDst, "keep-dst", false, "keep the files that have gone over if the move fails; the next one sends what is missing (an image goes by files then)")
	f.StringVar(&v.layout, "layout", "", "private area at the destination: dir or image; what it is at the source if not given")
	f.StringVar(&v.memory.Codec, "compress", v.memory.Codec, "codec of memory and files: zstd, lz4, none, or auto: what suits link and CPUs")
	f.DurationVar(&v.memory.DowntimeLimit, "downtime-limit", v.memory.DowntimeLimit, "freeze the container when its downtime is predicted to be below")
	f.IntVar(&v.memory.MaxRounds, "max-rounds", v.memory.MaxRounds, "rounds in which memory is sent before it is frozen anyway")
	f.DurationVar(&v.memory.MaxTime, "max-time", v.memory.MaxTime, "time for these rounds; a move that needs more is called off")
	f.BoolVar(&v.memory.AutoConverge, "auto-converge", false, "take CPU time from a container that writes faster than its memory can be sent")
	f.StringVar(&v.memory.Tracker, "tracker", v.memory.Tracker, "how changed memory is found: uffd-wp, soft-dirty, hash, none, or auto: the best there is")
	f.StringVar(&v.memory.Dump, "dump", v.memory.Dump, "how CRIU leaves memory alone that is there already: described, stock, or auto")
	f.StringVar(&v.deltaCache, "delta-cache", "64M", "memory at the source for sending changed pages as differences; 0 for none")
	f.IntVar(&v.memory.Streams, "streams", v.memory.Streams, "SSH connections that carry memory")
	f.BoolVar(&v.memory.Verify, "verify-tracking", false, "compare all memory with what was sent before it is handed over")
	f.StringVar(&v.rate, "bwlimit", "0", "most bytes a second to send while the container runs, such as 10M; 0 for no limit")
	f.BoolVar(&v.files.Polite, "polite", false, "read files only when nobody else wants the disk or the CPU")
	f.BoolVar(&v.files.Lossy, "lossy", false, "leave out what the destination's file system cannot keep")
	f.BoolVar(&v.asJSON, "json", false, "print the report as one JSON object")
	f.BoolVarP(&v.times, "times", "t", false, "show where the downtime went, step by step")
	f.BoolVarP(&v.quiet, "quiet", "q", false, "print errors only")
	f.StringVarP(&v.sshConfig, "ssh-config", "F", "", "ssh_config file to use instead of the user's")
	f.BoolVar(&v.receive, "receive", false, "be the destination of a source on standard input and output")
	f.BoolVar(&v.serve, "serve", false, "be the source for a job on standard input")
	_ = f.MarkHidden("receive") // the names are right: they stand above
	_ = f.MarkHidden("serve")
}

func (v *vzmigrate) checkArgs(_ *cobra.Command, args []string) error {
	if v.receive || v.serve {
		if len(args) > 0 {
			return fmt.Errorf("unexpected argument %q", args[0])
		}
		return nil
	}
	if len(args) == 1 || len(args) > 3 {
		return fmt.Errorf("got %d arguments, want [SOURCE] DESTINATION CTID", len(args))
	}
	if v.removeArea != "yes" && v.removeArea != "no" {
		return fmt.Errorf("--remove-area is %q, want yes or no", v.removeArea)
	}
	if v.layout != "" {
		l, err := lifecycle.ParseLayout(v.layout)
		if err != nil {
			return fmt.Errorf("--layout: %w", err)
		}
		v.layout = string(l)
	}
	var err error
	if v.files.Rate, err = pace.ParseLimit(v.rate); err != nil {
		return fmt.Errorf("--bwlimit: %w", err)
	}
	return v.checkMemory()
}

// checkMemory refuses options of the memory's way that cannot be used.
func (v *vzmigrate) checkMemory() error {
	m := &v.memory
	if _, err := m.FileCodec(); err != nil {
		return fmt.Errorf("--compress: %w", err)
	}
	cache, err := units.RAMInBytes(v.deltaCache)
	if err != nil || cache < 0 {
		return fmt.Errorf("--delta-cache is %q, want a size such as 64M", v.deltaCache)
	}
	m.DeltaCache = uint64(cache)
	switch {
	case m.DowntimeLimit < 0:
		return fmt.Errorf("--downtime-limit is %v, want a time such as 100ms", m.DowntimeLimit)
	case m.MaxRounds < 1:
		return fmt.Errorf("--max-rounds is %d, want at least 1", m.MaxRounds)
	case m.Streams < 1 || m.Streams > memory.MaxStreams:
		return fmt.Errorf("--streams is %d, want 1 to %d", m.Streams, memory.MaxStreams)
	case m.MaxTime <= 0:
		return fmt.Errorf("--max-time is %v, want a time such as 10m", m.MaxTime)
	case !slices.Contains([]string{"auto", "none", "uffd-wp", "soft-dirty", "hash"}, m.Tracker):
		return fmt.Errorf("--tracker is %q, want auto, uffd-wp, soft-dirty, hash or none", m.Tracker)
	case !slices.Contains([]string{"auto", "described", "stock"}, m.Dump):
		return fmt.Errorf("--dump is %q, want auto, described or stock", m.Dump)
	}
	return nil
}

func (v *vzmigrate) run1(ctx context.Context, cmd *cobra.Command, args []string) error {
	if len(args) == 0 && !v.receive && !v.serve {
		return cmd.Help() // with exit code 0, as OpenVZ's
	}
	if os.Geteuid() != 0 && len(args) < 3 {
		return fault.New(fault.Permission, "needs root").WithHint("Run it as root, or name a source to log in to.")
	}
	switch {
	case v.receive:
		v.silent = true // the source tells
		return v.receiveOne(ctx)
	case v.serve:
		v.silent = true // so does the events' reader
		return migrate.Serve(ctx, v.host, v.stdin, v.stdout)
	}
	watch := newWatcher(v.stderr, v.asJSON || v.quiet)
	report, err := v.move(ctx, args, watch.see)
	watch.end()
	if err != nil {
		return err
	}
	return v.print(report)
}

// receiveOne is the destination's side.
func (v *vzmigrate) receiveOne(ctx context.Context) error {
	in := v.stdin
	if f, ok := in.(*os.File); ok {
		in = migrate.Attentive(ctx, f)
	}
	return migrate.Receive(ctx, v.host, struct {
		io.Reader
		io.Writer
	}{in, v.stdout})
}

func (v *vzmigrate) print(r *migrate.Report) error {
	if v.asJSON {
		return json.NewEncoder(v.stdout).Encode(r)
	}
	if v.quiet {
		return nil
	}
	if v.times {
		for _, step := range r.Steps {
			fmt.Fprintf(v.stdout, "%-11s  %-32s %8.1f ms\n", step.Host, transport.Clean(step.Name), step.MS)
		}
	}
	fmt.Fprintln(v.stdout, r.Summary())
	return nil
}

// local are the names by which a command means the machine it runs on.
var local = map[string]bool{"localhost": true, "127.0.0.1": true, "::1": true}

// move runs the migration: here, or by the source that is named.
func (v *vzmigrate) move(ctx context.Context, args []string, emit func(migrate.Event)) (*migrate.Report, error) {
	source, dest, container := "localhost", args[0], args[1]
	if len(args) == 3 {
		source, dest, container = args[0], args[1], args[2]
	}
	if source == dest {
		return nil, fault.New(fault.SameHost, "source and destination are both %q", dest).
			WithHint("Name another host as the destination.")
	}
	to, err := v.resolve(dest)
	if err != nil {
		return nil, err
	}
	if local[source] {
		return v.moveFromHere(ctx, to, container, emit)
	}
	from, err := v.resolve(source)
	if err != nil {
		return nil, err
	}
	if from.Same(to) {
		return nil, fault.New(fault.SameHost, "%q and %q are the same host", source, dest).
			WithHint("Name another host as the destination.")
	}
	if local[to.Host] {
		return nil, fault.New(fault.Usage, "%q means another machine on %q", dest, source).
			WithHint("Name this host as %s reaches it.", source)
	}
	job, err := v.job(to, source, dest, container)
	if err != nil {
		return nil, err
	}
	return migrate.Drive(ctx, from, job, emit)
}

// job tells the source where to go. A destination that is reached through
// proxies of this machine's is left to the source's own ssh_config.
func (v *vzmigrate) job(to *ssh.Target, source, dest, container string) (migrate.Job, error) {
	j := migrate.Job{
		Container: container, From: source, To: dest, Target: dest,
		Memory: v.memory, Files: v.files, RequireLive: v.live, KeepFiles: v.removeArea == "no", KeepDst: v.keepDst, Layout: v.layout,
	}
	if to.Proxied() {
		return j, nil
	}
	keys, err := to.KnownHostsLines()
	j.Target, j.User, j.Port, j.KnownHosts = to.Host, to.User, to.Port, keys
	return j, err
}

func (v *vzmigrate) moveFromHere(ctx context.Context, to *ssh.Target, container string, emit func(migrate.Event)) (*migrate.Report, error) {
	if os.Geteuid() != 0 {
		return nil, fault.New(fault.Permission, "needs root").WithHint("Run it as root, or with sudo.")
	}
	c, err := v.host.Find(container)
	if err != nil {
		return nil, err
	}
	here, err := os.Hostname()
	if err != nil {
		return nil, err
	}
	note := func(line string) { emit(migrate.Event{Kind: migrate.Note, Text: to.Name + ": " + line}) }
	return migrate.Send(ctx, c, migrate.SendOptions{
		From: here, To: to.Name, Dial: migrate.Over(to, note), Memory: v.memory, Files: v.files,
		RequireLive: v.live, KeepFiles: v.removeArea == "no", KeepDst: v.keepDst, Layout: v.layout, Emit: emit,
	})
}

// resolve finds out what a host's name leads to. A link that is dead must be
// seen within seconds, whatever ssh_config says for interactive sessions. What
// is wrong with ssh_config is a matter of the connection, not of a container.
func (v *vzmigrate) resolve(name string) (*ssh.Target, error) {
	o := ssh.Options{ConfigFile: v.sshConfig, KeepAlive: migrate.KeepAlive, KeepAliveMax: migrate.KeepAliveMax}
	t, err := ssh.Resolve(name, o)
	if fault.KindOf(err) == fault.Config {
		return nil, &fault.Error{Kind: fault.Connect, Err: err, Hint: fault.HintOf(err)}
	}
	return t, err
}
