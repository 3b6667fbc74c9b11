package migrate

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/lifecycle/image"
)

// stagingPrefix begins the names of the container's staging directories; the
// migration's id ends them.
func (d *destination) stagingPrefix() string {
	return filepath.Join(filepath.Dir(d.c.Private()), fmt.Sprintf(".migrate-%d-", d.c.ID))
}

// clearStale removes what an earlier receiver of the container has left here
// because it was killed or the host went down. The container is not here and
// its lock is ours, so nobody needs any of it.
func (d *destination) clearStale() error {
	errs := []error{d.c.Kill(), d.c.Dismantle()}
	images := filepath.Join(d.host.Run, "restore", fmt.Sprintf("%d-", d.c.ID))
	for _, prefix := range []string{d.host.ConfPath(d.c.ID) + ".", images} {
		found, err := filepath.Glob(prefix + "*")
		errs = append(errs, err)
		for _, path := range found {
			if !uuids.MatchString(strings.TrimPrefix(path, prefix)) {
				continue
			}
			_ = unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW) // images are a mount
			errs = append(errs, os.RemoveAll(path))
		}
	}
	if err := errors.Join(append(errs, d.clearStaging(), d.c.Sweep())...); err != nil {
		return fault.New(fault.Copy, "clear what an earlier migration left: %w", err)
	}
	return nil
}

// clearStaging dooms staging directories, and what belongs to them.
func (d *destination) clearStaging() error {
	prefix := d.stagingPrefix()
	found, err := filepath.Glob(prefix + "*")
	errs := []error{err}
	for _, path := range found {
		if uuids.MatchString(strings.TrimPrefix(path, prefix)) {
			errs = append(errs, image.Image{Dir: path}.Unmount(), d.doom(path))
		}
	}
	return errors.Join(errs...)
}
