package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// The pages that are committed must be those that the programs give.
func TestPagesAreCurrent(t *testing.T) {
	const dir = "../../docs/man"
	want, err := pages()
	if err != nil {
		t.Fatal(err)
	}
	for name, page := range want {
		got, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || !bytes.Equal(got, page) {
			t.Errorf("%s is out of date: go generate ./internal/manpages", name)
		}
	}
	there, err := filepath.Glob(dir + "/*")
	if err != nil || len(there) != len(want) {
		t.Errorf("pages %q, want %d of them, %v", there, len(want), err)
	}
}

// A page must not depend on the machine that it is made on.
func TestPagesDoNotKnowTheirMachine(t *testing.T) {
	before, err := pages()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("VZLAB_DIR", "/elsewhere")
	after, err := pages()
	if err != nil {
		t.Fatal(err)
	}
	for name := range before {
		if !bytes.Equal(before[name], after[name]) {
			t.Errorf("%s changes with the environment", name)
		}
	}
}

// Every section that is written belongs to a program.
func TestSectionsHaveTheirProgram(t *testing.T) {
	all, err := pages()
	if err != nil {
		t.Fatal(err)
	}
	files, err := sections.ReadDir("sections")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		name := f.Name()[:len(f.Name())-len(".md")]
		if all[name+".8"] == nil {
			t.Errorf("sections of %q, which is no program", name)
		}
	}
}
