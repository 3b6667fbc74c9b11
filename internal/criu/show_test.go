package criu

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vzkit/vzkit/internal/mountns"
)

// A process with mounts of its own sees what is shown to it, once; one that
// shares ours is left alone.
func TestShow(t *testing.T) {
	for name, own := range map[string]bool{"own mounts": true, "our mounts": false} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			cmd := exec.Command("sh", "-euc", `echo ready; read word; cat "$1/file"; grep -c " $1 " /proc/self/mounts`, "sh", dir)
			cmd.SysProcAttr = &syscall.SysProcAttr{}
			if own {
				if mountns.Chrooted() {
					t.Skip("in a chroot, who enters a mount namespace comes to its root")
				}
				mountns.Private(cmd.SysProcAttr)
			}
			in, err := cmd.StdinPipe()
			must(t, err)
			out, err := cmd.StdoutPipe()
			must(t, err)
			must(t, cmd.Start())
			word := make([]byte, 6)
			_, err = out.Read(word)
			must(t, err)
			must(t, unix.Mount("tmpfs", dir, "tmpfs", 0, ""))
			defer unix.Unmount(dir, unix.MNT_DETACH)
			must(t, os.WriteFile(filepath.Join(dir, "file"), []byte("shown\n"), 0o600))
			must(t, (&Worker{cmd: cmd}).Show(dir))
			_, err = in.Write([]byte("go\n"))
			must(t, err)
			said := make([]byte, 100)
			n := 0
			for err == nil {
				var m int
				m, err = out.Read(said[n:])
				n += m
			}
			if werr := cmd.Wait(); werr != nil || string(said[:n]) != "shown\n1\n" {
				t.Errorf("%q, %v", said[:n], werr)
			}
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
