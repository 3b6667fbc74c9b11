package backup

import (
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/vzkit/vzkit/dump"
	"github.com/vzkit/vzkit/dump/track"
	"github.com/vzkit/vzkit/internal/criu"
	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/internal/preflight"
)

// check refuses, before any side effect, what cannot be done.
func (k *checkpoint) check() (err error) {
	if err := k.checkRunning(); err != nil {
		return err
	}
	if k.dir, err = target(k.Dir); err != nil {
		return err
	}
	if k.criu, err = criu.Find(); err != nil {
		return err
	}
	if k.cgroup, err = k.c.Cgroup(); err != nil {
		return fault.Wrap(fault.Cgroup, err)
	}
	pids, err := k.cgroup.Procs()
	if err != nil {
		return fault.Wrap(fault.Cgroup, err)
	}
	if err := preflight.Carried(k.c, pids, "a checkpoint cannot keep yet", "Remove it inside the container."); err != nil {
		return err
	}
	if err := k.checkSpace(pids); err != nil {
		return err
	}
	return k.chooseWay()
}

func (k *checkpoint) checkRunning() error {
	if err := k.c.CheckOwned(); err != nil {
		return err
	}
	status, err := k.c.Status()
	switch {
	case err != nil:
		return err
	case !status.Exists:
		return fault.New(fault.NoContainer, "container %d has no private area %q", k.c.ID, k.c.Private())
	case !status.Running:
		return fault.New(fault.NotRunning, "container %d is not running", k.c.ID).WithHint("vzctl start %d first.", k.c.ID)
	}
	return nil
}

// target is the absolute path of a directory that a checkpoint may take the
// place of.
func target(name string) (string, error) {
	if name == "" {
		return "", fault.New(fault.Usage, "no directory for the checkpoint").WithHint("Name one with --dir.")
	}
	dir, err := filepath.Abs(name)
	if err != nil {
		return "", fault.New(fault.BadValue, "directory %q: %w", name, err)
	}
	var parent, own unix.Stat_t
	if err := unix.Stat(filepath.Dir(dir), &parent); err != nil {
		return "", fault.New(fault.BadValue, "directory %q: %w", filepath.Dir(dir), err).WithHint("Make it first.")
	}
	if err := unix.Lstat(dir, &own); errors.Is(err, unix.ENOENT) {
		return dir, nil
	} else if err != nil {
		return "", fault.New(fault.BadValue, "directory %q: %w", dir, err)
	}
	if own.Mode&unix.S_IFMT != unix.S_IFDIR {
		return "", fault.New(fault.Exists, "%q is there already", dir)
	}
	if own.Dev != parent.Dev {
		return "", fault.New(fault.BadValue, "%q is a mount point", dir).WithHint("Name a directory in it that is not there yet.")
	}
	return dir, checkEmpty(dir)
}

func checkEmpty(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fault.New(fault.BadValue, "directory %q: %w", dir, err)
	}
	if len(entries) > 0 {
		return fault.New(fault.Exists, "directory %q is not empty", dir).
			WithHint("Name one that is not there yet; a checkpoint does not replace another.")
	}
	return nil
}

// chooseWay finds a tracker and a way to dump that work here.
func (k *checkpoint) chooseWay() error {
	if k.Tracker == "none" {
		k.mode = dump.Copied
		return nil
	}
	t, why, err := track.Open(k.Tracker, track.Options{Pids: k.cgroup.Procs})
	if err != nil {
		return fault.Wrap(fault.Checkpoint, err)
	}
	k.undo.Push("stop tracking", t.Close)
	k.tracker, k.report.Tracker = t, t.Name()
	if why != "" {
		k.Note("tracker is " + t.Name() + ": " + why)
	}
	if k.Dump != "auto" {
		k.mode = dump.Mode(k.Dump)
	}
	k.mode, why, err = dump.Choose(k.mode, k.criu)
	if why != "" {
		k.Note("dump is " + string(k.mode) + ": " + why)
	}
	return err
}

// spareBytes must be free beyond what the container has in use: it goes on.
const spareBytes = 64 << 20

// checkSpace compares what the container has in use with what is free.
func (k *checkpoint) checkSpace(pids []int) error {
	var err error
	if k.memory, err = dump.InUse(pids); err != nil {
		return fault.Wrap(fault.Checkpoint, err)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(filepath.Dir(k.dir), &st); err != nil {
		return fault.New(fault.NoSpace, "look at free space of %q: %w", filepath.Dir(k.dir), err)
	}
	if free := st.Bavail * uint64(st.Bsize); free < k.memory+spareBytes {
		return fault.New(fault.NoSpace, "%q has %d MiB free, %d MiB are needed", filepath.Dir(k.dir), free>>20, (k.memory+spareBytes)>>20).
			WithHint("Free disk space, or name a directory elsewhere.")
	}
	if k.Tracker == "none" {
		return nil
	}
	return preflight.Memory(k.memory+spareBytes,
		"Free memory, or let the container stand still while its memory goes to the disk: --tracker none.")
}

// noSpace gives errors of full file systems their kind and a hint.
func noSpace(err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return fault.New(fault.NoSpace, "%w", err).WithHint("Free space, or name a directory elsewhere.")
	}
	return err
}
