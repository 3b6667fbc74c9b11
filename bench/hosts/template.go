package hosts

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/klauspost/compress/zstd"
)

// Templates of containers.
const (
	Minimal    = "minimal"
	Debian     = "debian-12-redis"
	PostgreSQL = "debian-12-postgresql"
)

// templateDirs are where a template may have been built already: the suite's,
// the demonstration's. It is built in the last one if it is in none.
var templateDirs = []string{"/var/cache/vzkit/template", "/var/lib/vzlab-demo/template"}

// includes are the packages of Debian that templates have beside the usual.
var includes = map[string]string{Debian: "redis-server", PostgreSQL: "postgresql"}

// NeedTemplate puts a template among those of the lab's hosts.
func (r *Rig) NeedTemplate(ctx context.Context, name string) error {
	if name == Minimal {
		return Run(r.On(ctx, Alpha, "vztmpl", "build", Minimal), nil)
	}
	dir, err := r.cached(ctx, name)
	if err != nil {
		return fmt.Errorf("build template %q: %w", name, err)
	}
	return r.Sh(ctx, Alpha, "mkdir -p CACHE && cp DIR/cache/NAME.tar.zst DIR/cache/NAME.json CACHE/",
		"CACHE", "/var/lib/vz/template/cache", "DIR", dir, "NAME", name)
}

// cached is the directory that has the template, which is built if none has.
func (r *Rig) cached(ctx context.Context, name string) (dir string, err error) {
	for _, dir = range templateDirs {
		if _, err := os.Stat(filepath.Join(dir, "cache", name+".json")); err == nil {
			return dir, nil
		}
	}
	build := exec.CommandContext(ctx, r.Program("vztmpl"), "--dir", dir, "build", "debian-12", "--as", name, "--include", includes[name])
	return dir, Run(build, nil)
}

// Unpack unpacks a template in a directory of alpha.
func (r *Rig) Unpack(ctx context.Context, template, dir string) error {
	if err := r.NeedTemplate(ctx, template); err != nil {
		return err
	}
	file, err := os.Open(filepath.Join(r.Lab.Dir, "template/cache", template+".tar.zst"))
	if err != nil {
		return err
	}
	defer file.Close()
	tarball, err := zstd.NewReader(file)
	if err != nil {
		return err
	}
	defer tarball.Close()
	untar := r.On(ctx, Alpha, "tar", "-C", dir, "--numeric-owner", "-xf", "-")
	untar.Stdin = tarball
	if err := Run(untar, nil); err != nil {
		return fmt.Errorf("unpack template %q: %w", template, err)
	}
	return nil
}
