// Command manpages writes the programs' manual pages: what the command lines
// say of themselves (package cli), and what stands in sections beside it.
//
//	go run ./internal/manpages docs/man
package main

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/vzkit/vzkit/internal/cli"
)

//go:generate go run . ../../docs/man

// sections are Markdown that goes into a page behind what is generated.
//
//go:embed sections
var sections embed.FS

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: manpages DIRECTORY")
		os.Exit(2)
	}
	if err := write(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "manpages: error:", err)
		os.Exit(1)
	}
}

func write(dir string) error {
	all, err := pages()
	if err != nil {
		return err
	}
	for name, page := range all {
		if err := os.WriteFile(filepath.Join(dir, name), page, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// pages returns the pages by their file names.
func pages() (map[string][]byte, error) {
	commands := cli.Commands()
	all := map[string][]byte{}
	for _, cmd := range commands {
		more, err := sections.ReadFile("sections/" + cmd.Name() + ".md")
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		all[cmd.Name()+".8"] = render(cmd, string(more), commands)
	}
	return all, nil
}
