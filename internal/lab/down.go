package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/lifecycle/cgroup"
)

// preflight refuses what cannot work, before anything is touched.
func preflight(dir string) error {
	if mark, err := os.ReadFile(hostMark); err == nil {
		return fault.New(fault.BadValue, "this is a host of the lab in %q", strings.TrimSpace(string(mark))).
			WithHint("Run vzlab on the machine itself.")
	}
	if os.Geteuid() != 0 {
		return fault.New(fault.Permission, "lab needs root").WithHint("Run it as root, for example with sudo.")
	}
	if strings.HasPrefix(dir+"/", "/run/") {
		return fault.New(fault.BadValue, "lab directory %q is below /run", dir).
			WithHint("Hosts have a /run of their own; choose another place.")
	}
	_, err := cgroup.Hierarchies()
	return fault.Wrap(fault.Cgroup, err)
}

// lock takes the lab's lock, which is on its directory itself, and returns how
// to give it back. Without create, a lab that does not exist needs no lock.
func lock(ctx context.Context, dir string, create bool) (unlock func(), err error) {
	for {
		if create {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return nil, fmt.Errorf("make lab directory: %w", err)
			}
		}
		f, err := os.Open(dir)
		if errors.Is(err, fs.ErrNotExist) && !create {
			return func() {}, nil
		}
		if err != nil {
			return nil, fmt.Errorf("open lab directory: %w", err)
		}
		if err := flock(ctx, f); err != nil {
			f.Close()
			return nil, fmt.Errorf("lock lab: %w", err)
		}
		if isStill(f, dir) {
			return func() { f.Close() }, nil
		}
		f.Close() // a lab that was just taken down
	}
}

func flock(ctx context.Context, f *os.File) error {
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func isStill(f *os.File, path string) bool {
	ours, err1 := f.Stat()
	now, err2 := os.Stat(path)
	return err1 == nil && err2 == nil && os.SameFile(ours, now)
}

// Down kills everything in the lab and removes all of it but the templates. It
// needs no lab to be there, nor a whole one: what a crash left goes too.
func (l *Lab) Down() error { return Down(context.Background(), l.Dir, false) }

// Down takes down the lab in dir ("" is DefaultDir), with all its templates if
// all is set. See [Lab.Down].
func Down(ctx context.Context, dir string, all bool) error {
	l, err := at(dir)
	if err != nil {
		return err
	}
	if err := preflight(l.Dir); err != nil {
		return err
	}
	unlock, err := lock(ctx, l.Dir, false)
	if err != nil {
		return err
	}
	defer unlock()
	return l.teardown(all)
}

// teardown removes the lab, under its lock. It is for labs in any state, so it
// looks at what is there instead of what should be.
func (l *Lab) teardown(all bool) error {
	g, err := l.group()
	if err != nil {
		return err
	}
	if err := g.Kill(); err != nil {
		return fmt.Errorf("kill hosts: %w", err)
	}
	err = errors.Join(g.Remove(), l.undelegateRoots(), l.unclaimMountPoints())
	return errors.Join(err, l.removeState(all))
}

// removeState removes what the lab has in its directory, by name: the
// directory may be the wrong one. What makes it a lab goes last.
func (l *Lab) removeState(all bool) error {
	if err := unmountBelow(l.Dir); err != nil {
		return err
	}
	for _, name := range append(names[:], Admin, "ssh", "state") {
		if err := os.RemoveAll(l.path(name)); err != nil {
			return fmt.Errorf("remove lab state: %w", err)
		}
	}
	if left, err := os.ReadDir(l.Dir); all && err == nil && len(left) == 1 {
		if err := os.RemoveAll(l.path("template")); err != nil {
			return fmt.Errorf("remove templates: %w", err)
		}
	}
	for _, dir := range []string{l.path("template"), l.Dir} {
		if err := removeIfThere(dir); err != nil && !errors.Is(err, unix.ENOTEMPTY) {
			return fmt.Errorf("remove lab directory: %w", err)
		}
	}
	return nil
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// unmountBelow detaches whatever somebody has mounted inside dir, so that
// removing dir removes nothing else.
func unmountBelow(dir string) error {
	mounts, err := mountinfo.GetMounts(func(m *mountinfo.Info) (skip, stop bool) {
		return !strings.HasPrefix(m.Mountpoint, dir+"/"), false
	})
	if err != nil {
		return fmt.Errorf("list mounts: %w", err)
	}
	for i := len(mounts) - 1; i >= 0; i-- {
		if err := unix.Unmount(mounts[i].Mountpoint, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			return fmt.Errorf("unmount %q: %w", mounts[i].Mountpoint, err)
		}
	}
	return nil
}
