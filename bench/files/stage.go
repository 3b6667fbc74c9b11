package files

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/vzkit/vzkit/bench/hosts"
)

// ctid is the container's number, address its own.
const (
	ctid    = "101"
	address = "198.18.77.101"
)

// Places on a host.
const (
	state   = "/var/lib/vz"
	private = state + "/private/" + ctid
	copied  = state + "/bench" // what rsync makes
	within  = "srv/tree"       // of generated files, in a private area
)

// stage is the lab with what is measured in it.
type stage struct {
	*hosts.Rig
	Config
}

// scene is a container whose moves are measured.
type scene interface {
	// set makes the container on alpha, and what else is needed.
	set(context.Context) error
	// run moves it, or what differs, and does the same with rsync.
	run(ctx context.Context, n int) ([]Run, error)
	// end ends what set has started outside of the container, if anything.
	end()
}

func (*stage) end() {}

// play sets a scene and measures in it.
func (s *stage) play(ctx context.Context, p play) (all []Run, err error) {
	scene := p.scene(s)
	defer scene.end()
	if err := s.connect(ctx); err != nil {
		return nil, err
	}
	if err := scene.set(ctx); err != nil {
		return nil, err
	}
	for n := range s.runs(p) {
		runs, err := scene.run(ctx, n+1)
		if err != nil {
			return all, fmt.Errorf("run %d: %w", n+1, err)
		}
		for _, run := range s.asked(runs) {
			all = append(all, run)
			fmt.Fprintln(s.Progress, run)
		}
	}
	return all, nil
}

// asked leaves out what only came along.
func (s *stage) asked(runs []Run) (some []Run) {
	for _, run := range runs {
		if s.has(run.Case) {
			some = append(some, run)
		}
	}
	return some
}

// on is where a path below a host's /var/lib/vz is, seen from here. It is not
// /proc/PID/root, which rsync 3.5 writes nothing through.
func (s *stage) on(host, path string) string {
	return filepath.Join(s.Lab.Dir, host, "var-lib-vz", strings.TrimPrefix(path, state))
}

// create makes the container on alpha.
func (s *stage) create(ctx context.Context, template string) error {
	if err := s.NeedTemplate(ctx, template); err != nil {
		return err
	}
	return s.Sh(ctx, hosts.Alpha, `
		vzctl create CTID --ostemplate TEMPLATE --ipadd ADDRESS
		install -m 755 PROGRAM PRIVATE/usr/bin/vzbench`,
		"CTID", ctid, "TEMPLATE", template, "ADDRESS", address, "PROGRAM", s.Program("vzbench"), "PRIVATE", private)
}

// makeTree fills a directory of the container with files of its own root's.
func (s *stage) makeTree(ctx context.Context, t tree, name string) error {
	dir, uid, gid, err := s.makeDir(name)
	if err != nil {
		return err
	}
	return t.make(ctx, dir, uid, gid)
}

// makeDir makes a directory in the container on alpha, and tells who its root is.
func (s *stage) makeDir(name string) (dir string, uid, gid int, err error) {
	area := s.on(hosts.Alpha, private)
	dir = filepath.Join(area, name)
	if uid, gid, err = owner(area); err != nil {
		return dir, uid, gid, err
	}
	err = os.MkdirAll(dir, 0o755)
	for d := dir; err == nil && d != area; d = filepath.Dir(d) {
		err = os.Lchown(d, uid, gid)
	}
	return dir, uid, gid, err
}

func owner(path string) (uid, gid int, err error) {
	info, err := os.Lstat(path)
	if err != nil {
		return 0, 0, err
	}
	st := info.Sys().(*syscall.Stat_t)
	return int(st.Uid), int(st.Gid), nil
}

func (s *stage) start(ctx context.Context) error {
	return s.Sh(ctx, hosts.Alpha, "vzctl start CTID", "CTID", ctid)
}

// giveBack makes alpha the container's host again, whose private area stayed
// there when it moved.
func (s *stage) giveBack(ctx context.Context) error {
	if err := s.Sh(ctx, hosts.Beta, "vzctl destroy CTID", "CTID", ctid); err != nil {
		return err
	}
	return s.Sh(ctx, hosts.Alpha, "mv /etc/vz/conf/CTID.conf.migrated /etc/vz/conf/CTID.conf", "CTID", ctid)
}

// halt stops the container where it came to, so that nothing changes it.
func (s *stage) halt(ctx context.Context) error {
	return s.Sh(ctx, hosts.Beta, "vzctl stop CTID --fast", "CTID", ctid)
}

// settle writes back what was written before, so that it is in nobody's way.
func (s *stage) settle() error {
	return errors.Join(syncDisk(s.on(hosts.Alpha, state)), syncDisk(s.on(hosts.Beta, state)))
}

func syncDisk(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	return unix.Syncfs(int(dir.Fd()))
}

// maxTold is how many differences an error tells of.
const maxTold = 3

// same is an error if two trees, as seen from here, differ in anything that
// rsync sees, but for some files.
func same(ctx context.Context, src, dst string, but []string) error {
	cmd := exec.CommandContext(ctx, "rsync", "-aHAXnci", "--numeric-ids", "--delete", "--exclude-from=-", src+"/", dst+"/")
	var patterns strings.Builder
	for _, path := range but {
		patterns.WriteString("/" + escape.Replace(path) + "\n")
	}
	cmd.Stdin = strings.NewReader(patterns.String())
	var out bytes.Buffer
	if err := hosts.Run(cmd, &out); err != nil {
		return fmt.Errorf("compare trees: %w", err)
	}
	if lines := strings.Split(strings.TrimSpace(out.String()), "\n"); lines[0] != "" {
		return fmt.Errorf("copy differs in %d places: %q", len(lines), lines[:min(len(lines), maxTold)])
	}
	return nil
}

// escape takes its meaning from what means something in a pattern of rsync's.
var escape = strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`)
