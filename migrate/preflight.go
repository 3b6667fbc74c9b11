package migrate

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/checkpoint-restore/go-criu/v7/rpc"
	"golang.org/x/sys/unix"

	"github.com/vzkit/vzkit/internal/criu"
	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/internal/preflight"
	"github.com/vzkit/vzkit/lifecycle"
	"github.com/vzkit/vzkit/lifecycle/config"
)

// Space that must be free at the destination beyond what the source says it
// will send: the container goes on writing.
const (
	spareBytes  = 64 << 20
	spareInodes = 1024
)

// inodeSize is what an inode takes in an image, in bytes.
const inodeSize = 256

// check refuses an offer that this host cannot take, before any side effect.
func (d *destination) check() error {
	o := d.offer
	if o.CTID < lifecycle.MinCTID || o.CTID > lifecycle.MaxCTID {
		return fault.New(fault.Protocol, "container id %d is out of range", o.CTID)
	}
	if max(o.Memory, o.Disk, o.Inodes) > 1<<60 || o.Image != nil && o.Image.Allocated > 1<<60 {
		return fault.New(fault.NoSpace, "no host has room for what container %d says it is", o.CTID)
	}
	f, err := config.Parse([]byte(o.Config))
	if err != nil {
		return err
	}
	// Where containers are is this host's to say, not the source's.
	f.Unset("VE_PRIVATE")
	f.Unset("VE_ROOT")
	if d.c, err = d.host.With(o.CTID, f); err != nil {
		return err
	}
	if err := d.chooseLayout(); err != nil {
		return err
	}
	if err := d.checkAbsent(); err != nil {
		return err
	}
	if err := d.c.CheckFree(); err != nil {
		return err
	}
	if err := d.chooseWay(); err != nil {
		return err
	}
	bytes, inodes := o.Disk, o.Inodes
	destinationHeap(inodes)
	if d.c.Layout() == lifecycle.LayoutImage { // its inodes are within
		bytes, inodes = bytes+inodes*inodeSize, 1
	}
	if d.way == byBlocks {
		bytes = o.Image.Allocated
	}
	if err := checkDisk(filepath.Dir(d.c.Private()), bytes, inodes); err != nil {
		return err
	}
	if !o.Live {
		return nil
	}
	if err := preflight.Memory(d.storeLimit(), "Free memory on the destination."); err != nil {
		return err
	}
	return d.findCriu()
}

// checkAbsent refuses a container that is here. What vzmigrate -r no has kept
// is no container any more.
func (d *destination) checkAbsent() error {
	h, err := d.c.Handover()
	if err != nil {
		return fault.New(fault.Other, "%w", err)
	}
	if h != nil {
		return fault.New(fault.Exists, "container %d is there already, handed to %s since %s but not delivered", d.c.ID, h.To, h.At.Format(time.DateTime)).
			WithHint("Deliver it there first: vzmigrate %s %d", h.To, d.c.ID)
	}
	paths := []string{d.host.ConfPath(d.c.ID)}
	if k := findKept(d.host, d.c.ID, keptGone); k == nil || k.Path != d.c.Private() {
		paths = append(paths, d.c.Private())
	}
	for _, path := range paths {
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			return fault.New(fault.Exists, "container %d is there already: %q exists", d.c.ID, path).
				WithHint("Destroy it there first. Files without a config are in no use: move them away.")
		}
	}
	return nil
}

// checkDisk compares what will come with what is free where dir is or will be.
func checkDisk(dir string, bytes, inodes uint64) error {
	var st unix.Statfs_t
	err := unix.Statfs(dir, &st)
	for errors.Is(err, unix.ENOENT) {
		dir = filepath.Dir(dir)
		err = unix.Statfs(dir, &st)
	}
	if err != nil {
		return fault.New(fault.NoSpace, "look at free space of %q: %w", dir, err)
	}
	free := st.Bavail * uint64(st.Bsize)
	if st.Blocks > 0 && free < bytes+spareBytes { // some have no limit, and no blocks
		return fault.New(fault.NoSpace, "%q has %d MiB free, %d MiB are needed", dir, free>>20, (bytes+spareBytes)>>20).
			WithHint("Free disk space on the destination.")
	}
	if st.Files > 0 && st.Ffree < inodes+spareInodes {
		return fault.New(fault.NoSpace, "%q has %d inodes free, %d are needed", dir, st.Ffree, inodes+spareInodes).
			WithHint("Remove files on the destination.")
	}
	return nil
}

// checkCriu refuses a CRIU that does not run here, or is older than the one
// whose images it would have to read.
func checkCriu(path string, source int) error {
	own, err := criu.Version(path)
	if err != nil {
		return err
	}
	if own/100 < source/100 {
		return fault.New(fault.NoEngine, "criu %s cannot read images of criu %s", versionText(own), versionText(source)).
			WithHint("Run scripts/setup on the destination, or bring its CRIU to the source's version.")
	}
	if _, err := criu.Do(path, criu.Request{Type: rpc.CriuReqType_CHECK, Opts: criu.Quiet()}); err != nil {
		return fault.New(fault.NoEngine, "criu %q cannot run on this kernel: %w", path, err).
			WithHint("Run scripts/setup, which finds or builds a CRIU that works.")
	}
	return nil
}

func versionText(v int) string { return fmt.Sprintf("%d.%d.%d", v/10000, v/100%100, v%100) }
