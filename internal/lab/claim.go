package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// templateDir is where every host sees the lab's templates.
const templateDir = "/var/lib/vz/template"

// mountPoints are the directories that a host mounts its own over. They have
// to exist on the machine.
func mountPoints() []string { return []string{"/etc/vz", "/var/lib/vz", rootHome() + "/.ssh"} }

// A directory that labs have made as a mount point holds one mark for each of
// them. The last one to go removes it, unless something else is in it by then:
// removing a directory would tear a mount off it in another lab's hosts.
const markPrefix = ".mount-point-of-"

func (l *Lab) markName() string { return markPrefix + l.id() }

func (l *Lab) claimMountPoints() error {
	for _, dir := range mountPoints() {
		err := withLocked(filepath.Dir(dir), func() error { return l.claim(dir) })
		if err != nil {
			return fmt.Errorf("make mount point: %w", err)
		}
	}
	return nil
}

// claim marks dir if labs have made it, and makes it if nobody has. A new one
// appears with its mark in it.
func (l *Lab) claim(dir string) error {
	_, err := os.Lstat(dir)
	if err == nil {
		marks, err := filepath.Glob(filepath.Join(dir, markPrefix+"*"))
		if err != nil || len(marks) == 0 {
			return err // the machine's own
		}
		return os.WriteFile(filepath.Join(dir, l.markName()), nil, 0o600)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	staging := filepath.Join(filepath.Dir(dir), l.markName())
	if err := os.Mkdir(staging, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := os.WriteFile(filepath.Join(staging, l.markName()), nil, 0o600); err != nil {
		return err
	}
	return os.Rename(staging, dir)
}

func (l *Lab) unclaimMountPoints() error {
	var errs []error
	for _, dir := range mountPoints() {
		parent := filepath.Dir(dir)
		errs = append(errs, withLocked(parent, func() error {
			return errors.Join(l.unclaim(dir), l.unclaim(filepath.Join(parent, l.markName())))
		}))
	}
	return errors.Join(errs...)
}

func (l *Lab) unclaim(dir string) error {
	err := os.Remove(filepath.Join(dir, l.markName()))
	if err == nil || (errors.Is(err, fs.ErrNotExist) && filepath.Base(dir) == l.markName()) {
		err = os.Remove(dir)
	}
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTEMPTY) {
		return nil
	}
	return err
}

// withLocked runs f while no other lab is changing what is in dir. Where there
// is no dir there is nothing to change.
func withLocked(dir string, f func() error) error {
	d, err := os.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer d.Close()
	if err := unix.Flock(int(d.Fd()), unix.LOCK_EX); err != nil {
		return err
	}
	return f()
}
