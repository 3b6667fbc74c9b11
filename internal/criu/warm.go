package criu

import (
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"
)

// Warm lets CRIU at path find out what the kernel can, which takes it some
// 25 ms each time it does not know, and keeps the result in the directory
// cache. It does nothing if it is there, or if /run is a tmpfs, where CRIU
// keeps it itself. It puts tools of ours there, too (see emptyArchive). Only workers started with the same directory benefit.
func Warm(path, cache string) error {
	if err := writeTools(cache); err != nil {
		return err
	}
	known, err := knownFile(path, cache)
	if err != nil {
		return err
	}
	if fast, err := onTmpfs(runDir); err != nil || fast {
		return err
	}
	if _, err := os.Stat(known); err == nil {
		return nil
	}
	cmd, err := stage{Path: path, Known: known, Learn: true}.start(nil)
	if err != nil {
		return fmt.Errorf("let criu look at the kernel: %w", err)
	}
	return cmd.Wait()
}

// learn runs in the stage: what CRIU has found out is under the tmpfs of this
// mount namespace.
func (s stage) learn() error {
	out, err := exec.Command(s.Path, "check").CombinedOutput()
	data, rerr := os.ReadFile(kernData)
	if rerr != nil {
		return fmt.Errorf("criu check: %v: %.200s", err, out)
	}
	return renameio.WriteFile(s.Known, data, 0o600)
}

// knownFile is the file for what CRIU at path knows of the running kernel:
// another boot or another CRIU has another.
func knownFile(path, cache string) (string, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return "", fmt.Errorf("look at %q: %w", path, err)
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("identify boot: %w", err)
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%s%d %d %d %d", boot, st.Dev, st.Ino, st.Size, st.Mtim.Nano()))
	return filepath.Join(cache, fmt.Sprintf("%x.kdat", sum[:8])), nil
}
