// Package config reads and writes OpenVZ's configuration files, vz.conf and
// CTID.conf: lines of KEY="value" that a shell can source (vz.conf(5)).
//
// A File keeps every line it does not understand, comments included, in its
// place: other tools own them.
package config

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"strings"

	"github.com/google/renameio/v2"
	"github.com/vzkit/vzkit/internal/fault"
)

// maxFile bounds a configuration file, in bytes; a container's comes from
// another host during a migration.
const maxFile = 256 << 10

var assignment = regexp.MustCompile(`^\s*([A-Z][A-Z0-9_]*)=(.*?)\s*$`)

// File is one configuration file: assignments and other lines, in order. The
// zero value is an empty file.
type File struct {
	lines []line
}

type line struct {
	key, value string // of an assignment; key is "" otherwise
	text       string // as read; rebuilt by Set
}

// Parse reads the text of a configuration file. Of a key assigned twice the
// last value counts, as in a shell.
func Parse(text []byte) (*File, error) {
	if len(text) > maxFile {
		return nil, fault.New(fault.Config, "config of %d bytes is over the limit of %d", len(text), maxFile)
	}
	f := &File{}
	if len(text) == 0 {
		return f, nil
	}
	text = bytes.TrimSuffix(text, []byte("\n"))
	for i, s := range strings.Split(string(text), "\n") {
		l := line{text: s}
		if m := assignment.FindStringSubmatch(s); m != nil {
			value, err := unquote(m[2])
			if err != nil {
				return nil, fault.New(fault.Config, "config line %d, %s: %w", i+1, m[1], err)
			}
			l.key, l.value = m[1], value
		}
		f.lines = append(f.lines, l)
	}
	return f, nil
}

// Load reads the file at path. A missing file gives fs.ErrNotExist.
func Load(path string) (*File, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err != nil {
		return nil, fault.New(fault.Config, "read config: %w", err)
	}
	f, err := Parse(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return f, nil
}

// Get returns the value of key and whether it is set.
func (f *File) Get(key string) (string, bool) {
	if f == nil {
		return "", false
	}
	for i := len(f.lines) - 1; i >= 0; i-- {
		if f.lines[i].key == key {
			return f.lines[i].value, true
		}
	}
	return "", false
}

// Set gives key a value, in its place if it has one. Values that a shell would
// interpret are refused.
func (f *File) Set(key, value string) error {
	if strings.ContainsAny(value, "\"`\\\n\r\x00") {
		return fault.New(fault.BadValue, "value %q of %s cannot be stored", value, key)
	}
	l := line{key: key, value: value, text: key + `="` + value + `"`}
	f.Unset(key, &l)
	return nil
}

// Unset removes key; with a replacement, the first occurrence becomes it and
// a missing key is appended.
func (f *File) Unset(key string, replacement ...*line) {
	kept := f.lines[:0]
	for _, l := range f.lines {
		switch {
		case l.key != key:
			kept = append(kept, l)
		case len(replacement) > 0:
			kept = append(kept, *replacement[0])
			replacement = nil
		}
	}
	for _, l := range replacement {
		kept = append(kept, *l)
	}
	f.lines = kept
}

// Bytes is the text of the file.
func (f *File) Bytes() []byte {
	var b bytes.Buffer
	for _, l := range f.lines {
		b.WriteString(l.text)
		b.WriteByte('\n')
	}
	return b.Bytes()
}

// Save writes the file to path durably and in one step: readers see the old
// text or the new one, also after a power loss.
func (f *File) Save(path string) error {
	if err := renameio.WriteFile(path, f.Bytes(), 0o644); err != nil {
		return fault.New(fault.Config, "save config: %w", err)
	}
	return nil
}

// unquote takes the quotes off a value: "…", '…' or none.
func unquote(s string) (string, error) {
	for _, q := range []string{`"`, `'`} {
		if !strings.HasPrefix(s, q) {
			continue
		}
		end := strings.Index(s[1:], q)
		if end < 0 {
			return "", errors.New("missing closing quote")
		}
		rest := strings.TrimSpace(s[end+2:])
		if rest != "" && !strings.HasPrefix(rest, "#") {
			return "", fmt.Errorf("text %q after the value", rest)
		}
		return s[1 : end+1], nil
	}
	if i := strings.IndexAny(s, " \t"); i >= 0 {
		s = s[:i]
	}
	return s, nil
}
