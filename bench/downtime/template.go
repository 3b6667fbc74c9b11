package downtime

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/klauspost/compress/zstd"
)

// templateDirs are where a template may have been built already: the suite's,
// the demonstration's. It is built in the last one if it is in none.
var templateDirs = []string{"/var/cache/vzkit/template", "/var/lib/vzlab-demo/template"}

// includes are the packages of Debian that templates have beside the usual.
var includes = map[string]string{debian: "redis-server", postgresql: "postgresql"}

// needTemplate puts a template among those of the lab's hosts.
func (r *rig) needTemplate(ctx context.Context, name string) error {
	if name == minimal {
		return run(r.on(ctx, alpha, "vztmpl", "build", minimal), nil)
	}
	dir, err := r.cached(ctx, name)
	if err != nil {
		return fmt.Errorf("build template %q: %w", name, err)
	}
	return r.sh(ctx, alpha, "mkdir -p CACHE && cp DIR/cache/NAME.tar.zst DIR/cache/NAME.json CACHE/",
		"CACHE", "/var/lib/vz/template/cache", "DIR", dir, "NAME", name)
}

// cached is the directory that has the template, which is built if none has.
func (r *rig) cached(ctx context.Context, name string) (dir string, err error) {
	for _, dir = range templateDirs {
		if _, err := os.Stat(filepath.Join(dir, "cache", name+".json")); err == nil {
			return dir, nil
		}
	}
	build := exec.CommandContext(ctx, r.program("vztmpl"), "--dir", dir, "build", "debian-12", "--as", name, "--include", includes[name])
	return dir, run(build, nil)
}

// unpack unpacks a template in a directory of alpha.
func (r *rig) unpack(ctx context.Context, template, dir string) error {
	if err := r.needTemplate(ctx, template); err != nil {
		return err
	}
	file, err := os.Open(filepath.Join(r.lab.Dir, "template/cache", template+".tar.zst"))
	if err != nil {
		return err
	}
	defer file.Close()
	tarball, err := zstd.NewReader(file)
	if err != nil {
		return err
	}
	defer tarball.Close()
	untar := r.on(ctx, alpha, "tar", "-C", dir, "--numeric-owner", "-xf", "-")
	untar.Stdin = tarball
	if err := run(untar, nil); err != nil {
		return fmt.Errorf("unpack template %q: %w", template, err)
	}
	return nil
}
