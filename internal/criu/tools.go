package criu

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/renameio/v2"
)

// CRIU saves what is in a tmpfs with tar and gzip, which takes some 20 ms of
// a container's standstill also where there is nothing in it, as in most
// /dev/shm. Our tar, first on CRIU's PATH, knows how an empty archive looks.

// toolsDir is where Warm puts it below its cache. The container's root runs it.
func toolsDir(cache string) string { return filepath.Join(cache, "bin") }

// emptyMark is the comment in the header of a packed archive without members,
// with a line end in it and no zero byte before that: a shell can read it.
const emptyMark = "vzkit empty"

// emptyArchive is an archive without members, packed.
func emptyArchive() []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	w.Comment = emptyMark + "\n"
	w.ModTime = time.Unix(0x01010101, 0)
	_, _ = w.Write(make([]byte, 20*512)) // what tar writes: a record of zero blocks; memory takes it
	_ = w.Close()
	return b.Bytes()
}

// tarScript is for a POSIX shell. CRIU hands over a directory or an archive on
// standard input (criu/filesystems.c, tmpfs_dump and tmpfs_restore). The archive
// is opened anew: reading its first line leaves the place where tar begins.
const tarScript = `#!/bin/sh
empty() {
	for f in "$1"/* "$1"/.[!.]* "$1"/..?*; do
		if [ -e "$f" ] || [ -L "$f" ]; then return 1; fi
	done
}
case $1 in
--create) if empty /proc/self/fd/0; then printf '%s'; exit; fi ;;
--extract) IFS= read -r line </proc/self/fd/0; case $line in *'%s') exit ;; esac ;;
esac
PATH=${PATH#*:} exec tar "$@"
`

func writeTools(cache string) error {
	archive := emptyArchive()
	var octal strings.Builder
	for _, b := range archive {
		fmt.Fprintf(&octal, `\%03o`, b)
	}
	if err := os.MkdirAll(toolsDir(cache), 0o755); err != nil {
		return fmt.Errorf("make criu's tools: %w", err)
	}
	return renameio.WriteFile(filepath.Join(toolsDir(cache), "tar"), fmt.Appendf(nil, tarScript, octal.String(), emptyMark), 0o755)
}

// withTools is the environment for a CRIU that finds our tools first.
func withTools(env []string, cache string) []string {
	return append(env[:len(env):len(env)], "PATH="+toolsDir(cache)+":"+os.Getenv("PATH"))
}
