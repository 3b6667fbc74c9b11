package image

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/vzkit/vzkit/internal/fault"
)

// Bits of e2fsck's exit code (e2fsck(8)): below fsckFailed, the file system is
// fine when it ends.
const fsckFailed = 4

// check has e2fsck look whether the file system is marked clean; if it is not,
// it replays the journal and repairs what can be repaired without a question.
func (i Image) check(ctx context.Context, f *os.File) error {
	if i.Unchecked {
		return nil
	}
	return i.fsck(ctx, f, "-p")
}

func (i Image) fsck(ctx context.Context, f *os.File, flags ...string) error {
	code, err := run(ctx, fault.ImageMount, f, "e2fsck", append(flags, i.Path())...)
	if err != nil && code > 0 && code < fsckFailed {
		return nil
	}
	if err != nil && code > 0 {
		return fault.New(fault.ImageMount, "image %q is damaged: %w", i.Path(), err).
			WithHint("e2fsck -f %s shows what is wrong and repairs what it can.", i.Path())
	}
	return err
}

// run runs a program of e2fsprogs. It is started in a process group of its own
// and not ended with ctx: half of it may be worse than none. It inherits lock,
// so that the image stays claimed until it ends, even if we are killed.
func run(ctx context.Context, kind fault.Kind, lock *os.File, name string, args ...string) (code int, err error) {
	if err := ctx.Err(); err != nil {
		return 0, fault.New(fault.Interrupted, "run %s: %w", name, err)
	}
	path, err := lookup(name)
	if err != nil {
		return 0, err
	}
	cmd := exec.Command(path, args...)
	cmd.Env = []string{"LC_ALL=C", "PATH=/usr/sbin:/sbin:/usr/bin:/bin"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if lock != nil {
		cmd.ExtraFiles = []*os.File{lock}
	}
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	err = cmd.Run()
	if err == nil {
		return 0, nil
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		code = exit.ExitCode()
	}
	return code, fault.New(kind, "run %s on %q: %w: %s", name, args[len(args)-1], err, gist(said.String()))
}

// gist is the first line with something to tell of what a program said.
func gist(said string) string {
	for line := range strings.Lines(said) {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "e2fsck 1.") && !strings.HasPrefix(line, "resize2fs 1.") && !strings.HasPrefix(line, "mke2fs 1.") {
			return line
		}
	}
	return "it said nothing"
}

// lookup finds a program of e2fsprogs, which many users' PATH does not reach.
func lookup(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path, nil
		}
	}
	return "", fault.New(fault.NoImages, "program %s is missing", name).
		WithHint("Containers with --layout image need the package e2fsprogs.")
}
