package lifecycle

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// device is a node of a container's /dev. Nodes are made by the host in the
// private area, since a user namespace may not make any; there is no mount to
// carry through a checkpoint.
type device struct {
	name         string
	major, minor uint32
	mode         uint32
}

var devices = []device{
	{"null", 1, 3, 0o666}, {"zero", 1, 5, 0o666}, {"full", 1, 7, 0o666},
	{"random", 1, 8, 0o666}, {"urandom", 1, 9, 0o666}, {"tty", 5, 0, 0o666},
	// The console is a null device: init and start scripts write to it, and
	// the host's own console must not be reachable.
	{"console", 1, 3, 0o600},
}

var deviceLinks = [][2]string{
	{"ptmx", "pts/ptmx"}, {"fd", "/proc/self/fd"}, {"stdin", "/proc/self/fd/0"},
	{"stdout", "/proc/self/fd/1"}, {"stderr", "/proc/self/fd/2"},
}

// makeDevices fills dev below a private area that nothing runs in yet.
func makeDevices(private string, uid, gid int) error {
	dev := filepath.Join(private, "dev")
	if info, err := os.Lstat(dev); err == nil && !info.IsDir() {
		return fmt.Errorf("template's dev is no directory")
	}
	if err := mkdirOwned(dev, uid, gid); err != nil {
		return err
	}
	for _, sub := range []string{"pts", "shm"} {
		if err := mkdirOwned(filepath.Join(dev, sub), uid, gid); err != nil {
			return err
		}
	}
	for _, d := range devices {
		path := filepath.Join(dev, d.name)
		if err := os.RemoveAll(path); err != nil {
			return fmt.Errorf("replace device: %w", err)
		}
		if err := unix.Mknod(path, unix.S_IFCHR|d.mode, int(unix.Mkdev(d.major, d.minor))); err != nil {
			return fmt.Errorf("make device %q: %w", d.name, err)
		}
		// mknod's mode went through the umask
		if err := errors.Join(unix.Chmod(path, d.mode), unix.Chown(path, uid, gid)); err != nil {
			return fmt.Errorf("set up device %q: %w", d.name, err)
		}
	}
	for _, l := range deviceLinks {
		path := filepath.Join(dev, l[0])
		if err := os.RemoveAll(path); err != nil {
			return fmt.Errorf("replace device link: %w", err)
		}
		if err := errors.Join(os.Symlink(l[1], path), os.Lchown(path, uid, gid)); err != nil {
			return fmt.Errorf("make device link %q: %w", l[0], err)
		}
	}
	return nil
}

func mkdirOwned(dir string, uid, gid int) error {
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("make device directory: %w", err)
	}
	return os.Lchown(dir, uid, gid)
}
