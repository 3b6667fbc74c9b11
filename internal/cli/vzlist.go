package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/internal/version"
	"github.com/vzkit/vzkit/lifecycle"
)

// listed is one container as vzlist shows it; the JSON names are OpenVZ's.
type listed struct {
	CTID       uint32   `json:"ctid"`
	NumProc    *int     `json:"numproc"` // null if it does not run
	Status     string   `json:"status"`
	IP         []string `json:"ip"`
	Hostname   string   `json:"hostname"`
	Name       string   `json:"name"`
	OSTemplate string   `json:"ostemplate"`
	Private    string   `json:"private"`
	Root       string   `json:"root"`
	Layout     string   `json:"layout"`
	DiskSpace  *space   `json:"diskspace"` // null if there is no limit to it
}

// space is the disk space of an image, in KiB. It has one limit, which is both.
type space struct {
	Usage *int64 `json:"usage"` // null if it is not mounted
	Soft  int64  `json:"softlimit"`
	Hard  int64  `json:"hardlimit"`
}

// columns are the fields of -o, each with its heading and text.
var columns = map[string]struct {
	heading string
	text    func(listed) string
}{
	"ctid":        {"CTID", func(l listed) string { return fmt.Sprint(l.CTID) }},
	"numproc":     {"NPROC", func(l listed) string { return numberOrDash(l.NumProc) }},
	"status":      {"STATUS", func(l listed) string { return l.Status }},
	"ip":          {"IP_ADDR", func(l listed) string { return orDash(strings.Join(l.IP, " ")) }},
	"hostname":    {"HOSTNAME", func(l listed) string { return orDash(l.Hostname) }},
	"name":        {"NAME", func(l listed) string { return orDash(l.Name) }},
	"ostemplate":  {"OSTEMPLATE", func(l listed) string { return orDash(l.OSTemplate) }},
	"private":     {"PRIVATE", func(l listed) string { return l.Private }},
	"root":        {"ROOT", func(l listed) string { return l.Root }},
	"layout":      {"LAYOUT", func(l listed) string { return l.Layout }},
	"diskspace":   {"DSPACE", ofSpace(func(s *space) *int64 { return s.Usage })},
	"diskspace.s": {"DSPACE.S", ofSpace(func(s *space) *int64 { return &s.Soft })},
	"diskspace.h": {"DSPACE.H", ofSpace(func(s *space) *int64 { return &s.Hard })},
}

type vzlist struct {
	program
	host                           *lifecycle.Host
	all, stopped, names, bare, ids bool
	asJSON                         bool
	fields                         []string
}

// Vzlist is the program vzlist(8) without its process.
func Vzlist(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	v := &vzlist{
		program: program{name: "vzlist", stdin: stdin, stdout: stdout, stderr: stderr, code: listCode, root: true},
		host:    lifecycle.Local(),
	}
	return v.run(ctx, v.root(), args)
}

func (v *vzlist) root() *cobra.Command {
	root := &cobra.Command{
		Use: "vzlist [-a|-S] [-n] [-H] [-j] [-o FIELD,...|-1] [CTID|NAME...]", Short: "List containers",
		Long: "List containers: the running ones, or those named.\n\nFields: " + strings.Join(fieldNames(), ", ") +
			".\n\ndiskspace is what is used of an image that is mounted, diskspace.s and diskspace.h are its size; all in KiB." +
			"\n\nExit status: 0 done, 1 a named container does not exist or something failed.",
		Version: version.String, Args: cobra.ArbitraryArgs,
		RunE: func(_ *cobra.Command, args []string) error { return v.list(args) },
	}
	f := root.Flags()
	f.BoolVarP(&v.all, "all", "a", false, "stopped ones too")
	f.BoolVarP(&v.stopped, "stopped", "S", false, "stopped ones only")
	f.BoolVarP(&v.names, "name", "n", false, "show the name instead of the host name")
	f.BoolVarP(&v.bare, "no-header", "H", false, "no heading")
	f.BoolVarP(&v.ids, "ctid", "1", false, "CTIDs only, without heading")
	f.BoolVarP(&v.asJSON, "json", "j", false, "print JSON")
	f.StringSliceVarP(&v.fields, "output", "o", []string{"ctid", "numproc", "status", "ip", "hostname"}, "fields to show")
	root.MarkFlagsMutuallyExclusive("all", "stopped")
	root.MarkFlagsMutuallyExclusive("ctid", "json")
	return root
}

func listCode(error) int { return 1 }

func fieldNames() []string {
	var names []string
	for name := range columns {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func (v *vzlist) list(args []string) error {
	if v.ids {
		v.fields, v.bare = []string{"ctid"}, true
	}
	for i, f := range v.fields {
		if f == "hostname" && v.names {
			v.fields[i] = "name"
		}
		if _, ok := columns[v.fields[i]]; !ok {
			return fault.New(fault.Usage, "unknown field %q", f).WithHint("vzlist --help lists the fields.")
		}
	}
	containers, broken := v.chosen(args)
	rows := []listed{}
	for _, c := range containers {
		row, err := describe(c)
		if err != nil {
			return err
		}
		running := row.Status == "running"
		if v.all || len(args) > 0 || running != v.stopped {
			rows = append(rows, row)
		}
	}
	return errors.Join(v.print(rows), broken)
}

// chosen are the containers to show; what could not be found or read is in
// the error.
func (v *vzlist) chosen(args []string) ([]*lifecycle.Container, error) {
	if len(args) == 0 {
		return v.host.List()
	}
	var chosen []*lifecycle.Container
	var errs []error
	for _, name := range args {
		c, err := v.host.Find(name)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		chosen = append(chosen, c)
	}
	return chosen, errors.Join(errs...)
}

func describe(c *lifecycle.Container) (listed, error) {
	s, err := c.Status()
	if err != nil {
		return listed{}, err
	}
	l := listed{
		CTID: c.ID, Status: "stopped", IP: []string{}, Hostname: c.Hostname(), Name: c.Name(),
		OSTemplate: c.Template(), Private: c.Private(), Root: c.Root(),
		Layout: string(c.Layout()),
	}
	if l.DiskSpace, err = diskSpace(c, s); err != nil {
		return l, err
	}
	for _, a := range c.Venet().Addrs {
		l.IP = append(l.IP, a.String())
	}
	switch handed, err := c.Handover(); {
	case err != nil:
		return l, err
	case handed != nil:
		l.Status = "handed to " + handed.To
	case s.Running:
		l.Status = "running"
		n, err := processes(c)
		l.NumProc = &n
		return l, err
	case s.Mounted:
		l.Status = "mounted"
	}
	return l, nil
}

func processes(c *lifecycle.Container) (int, error) {
	g, err := c.Cgroup()
	if err != nil {
		return 0, err
	}
	pids, err := g.Procs()
	return len(pids), err
}

// diskSpace is nil for a container that may fill its host's file system.
func diskSpace(c *lifecycle.Container, s lifecycle.Status) (*space, error) {
	if c.Layout() != lifecycle.LayoutImage {
		return nil, nil
	}
	size := c.DiskSpace() >> 10
	d := &space{Soft: size, Hard: size}
	if !s.Mounted {
		return d, nil
	}
	var fs unix.Statfs_t
	err := unix.Statfs(c.Root(), &fs)
	if errors.Is(err, unix.ENOENT) { // unmounted meanwhile
		return d, nil
	}
	if err != nil {
		return nil, fault.New(fault.Other, "file system of %q: %w", c.Root(), err)
	}
	used := int64(fs.Blocks-fs.Bfree) * fs.Frsize >> 10
	d.Usage = &used
	return d, nil
}

func (v *vzlist) print(rows []listed) error {
	if v.asJSON {
		e := json.NewEncoder(v.stdout)
		e.SetIndent("", "  ")
		return e.Encode(rows)
	}
	w := tabwriter.NewWriter(v.stdout, 0, 0, 2, ' ', 0)
	if !v.bare {
		fmt.Fprintln(w, v.line(func(f string) string { return columns[f].heading }))
	}
	for _, row := range rows {
		fmt.Fprintln(w, v.line(func(f string) string { return columns[f].text(row) }))
	}
	return w.Flush()
}

func (v *vzlist) line(cell func(field string) string) string {
	var cells []string
	for _, f := range v.fields {
		cells = append(cells, cell(f))
	}
	return strings.Join(cells, "\t")
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func numberOrDash[T int | int64](n *T) string {
	if n == nil {
		return "-"
	}
	return fmt.Sprint(*n)
}

// ofSpace is a cell with a number of a container's disk space.
func ofSpace(number func(*space) *int64) func(listed) string {
	return func(l listed) string {
		if l.DiskSpace == nil {
			return "-"
		}
		return numberOrDash(number(l.DiskSpace))
	}
}
