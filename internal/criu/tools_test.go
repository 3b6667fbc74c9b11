package criu

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Our tar gives an empty directory an archive that any tar reads, takes its own
// archive for empty, and leaves everything else to the machine's tar.
func TestTools(t *testing.T) {
	cache, empty, full := t.TempDir(), t.TempDir(), t.TempDir()
	if err := writeTools(cache); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(full, ".hidden\n name"), []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	tar := func(own bool, input *os.File, args ...string) []byte {
		t.Helper()
		cmd := exec.Command("tar", args...)
		if own {
			cmd = exec.Command(filepath.Join(toolsDir(cache), "tar"), args...)
			cmd.Env = withTools(os.Environ(), cache)
		}
		cmd.Stdin = input
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%v: %v", args, err)
		}
		return out
	}
	open := func(path string) *os.File {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	for dir, files := range map[string]int{empty: 0, full: 1} {
		archive := filepath.Join(t.TempDir(), "archive")
		text := tar(true, open(dir), "--create", "--gzip", "--directory", "/proc/self/fd/0", ".")
		if err := os.WriteFile(archive, text, 0o600); err != nil {
			t.Fatal(err)
		}
		if own := bytes.Equal(text, emptyArchive()); own != (files == 0) {
			t.Errorf("%d files: archive is ours: %v", files, own)
		}
		for _, ours := range []bool{true, false} {
			to := t.TempDir()
			tar(ours, open(archive), "--extract", "--gzip", "--directory", to)
			if got, err := os.ReadDir(to); err != nil || len(got) != files {
				t.Errorf("%d files: extracted %v, %v", files, got, err)
			}
		}
	}
}
