package template

import (
	"bytes"
	"embed"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
)

// What the templates get on top of their packages: minimal/ and debian/ hold
// the files by their path in the container.
//
//go:embed minimal debian
var overlays embed.FS

// overlay copies the embedded tree name into root. Scripts, known by their
// "#!", are executable, shadow files readable by root alone.
func overlay(root *os.Root, name string) error {
	return fs.WalkDir(overlays, name, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := overlays.ReadFile(p)
		if err != nil {
			return err
		}
		mode := fs.FileMode(0o644)
		switch {
		case bytes.HasPrefix(data, []byte("#!")):
			mode = 0o755
		case path.Base(p) == "shadow":
			mode = 0o600
		}
		return writeFile(root, strings.TrimPrefix(p, name+"/"), data, mode)
	})
}

// writeFile replaces a file in root, whatever it was, link included, and makes
// the directories that lead to it. The umask has no say.
func writeFile(root *os.Root, name string, data []byte, mode fs.FileMode) error {
	if err := makeDirs(root, path.Dir(name)); err != nil {
		return err
	}
	if err := root.RemoveAll(name); err != nil {
		return fmt.Errorf("replace %q: %w", name, err)
	}
	if err := root.WriteFile(name, data, mode); err != nil {
		return fmt.Errorf("write %q: %w", name, err)
	}
	return root.Chmod(name, mode)
}

// makeDirs makes dir and its parents in root, those that are missing with mode
// 0755.
func makeDirs(root *os.Root, dir string) error {
	if dir == "." {
		return nil
	}
	if fi, err := root.Stat(dir); err == nil && fi.IsDir() {
		return nil
	}
	if err := makeDirs(root, path.Dir(dir)); err != nil {
		return err
	}
	if err := root.Mkdir(dir, 0o755); err != nil {
		return fmt.Errorf("make dir: %w", err)
	}
	return root.Chmod(dir, 0o755)
}
