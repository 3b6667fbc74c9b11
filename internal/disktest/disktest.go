// Package disktest gives tests a directory on a disk: a tmpfs, which /tmp may be,
// has no fanotify by handle, no inode flags, and no time stamps of writes through
// mappings.
package disktest

import (
	"os"

	"golang.org/x/sys/unix"
)

// Use makes (*testing.T).TempDir give directories on a disk for the rest of the
// process, if there is one. It is for TestMain.
func Use() {
	for _, dir := range []string{os.TempDir(), "/var/tmp"} {
		var st unix.Statfs_t
		if unix.Statfs(dir, &st) == nil && st.Type != unix.TMPFS_MAGIC && st.Type != unix.RAMFS_MAGIC {
			os.Setenv("TMPDIR", dir)
			return
		}
	}
}
