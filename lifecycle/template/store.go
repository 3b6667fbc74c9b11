package template

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"sort"
	"strings"
	"time"

	"github.com/vzkit/vzkit/internal/fault"
)

// Limits on what metadata and tarballs may claim.
const (
	maxMetadata = 1 << 20 // bytes of NAME.json
	maxEntries  = 4 << 20 // files, directories and links of one template
	maxUnpacked = 1 << 42 // bytes of file contents of one template
)

// Store is a template directory. It need not exist before the first Build.
type Store struct{ Dir string }

// Info is what is known about a template.
type Info struct {
	Name         string    `json:"name"`
	Distribution string    `json:"distribution"` // debian, busybox
	Release      string    `json:"release"`      // 12, 13, 1.35.0
	Arch         string    `json:"arch"`         // as dpkg and Go call it: amd64, arm64
	Built        time.Time `json:"built"`
	Packages     []string  `json:"packages"` // NAME=VERSION, sorted
	Size         int64     `json:"size"`     // bytes of the tarball
	Unpacked     int64     `json:"unpacked"` // bytes of the regular files in it
	Entries      int       `json:"entries"`  // files, directories and links in it
	SHA256       string    `json:"sha256"`   // of the tarball, hex
}

var validName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+-]{0,99}$`)

// Path returns the file name of template name's tarball, there or not.
func (s Store) Path(name string) (string, error) {
	if !validName.MatchString(name) {
		return "", fault.New(fault.BadValue, "bad template name %q", name).
			WithHint("A template name has letters, digits and . _ + - only, and starts with a letter or digit.")
	}
	return filepath.Join(s.cache(), name+".tar.zst"), nil
}

func (s Store) cache() string { return filepath.Join(s.Dir, "cache") }

// metadata returns the name of the file beside tarball.
func metadata(tarball string) string { return strings.TrimSuffix(tarball, ".tar.zst") + ".json" }

// List returns the templates by name. Damaged ones are left out and reported
// in the error, beside the list of the good ones.
func (s Store) List() ([]Info, error) {
	files, err := os.ReadDir(s.cache())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list templates: %w", err)
	}
	var all []Info
	var bad []error
	for _, f := range files {
		name, ok := strings.CutSuffix(f.Name(), ".json")
		if !ok || !validName.MatchString(name) {
			continue
		}
		info, err := s.Lookup(name)
		if err != nil {
			bad = append(bad, err)
			continue
		}
		all = append(all, info)
	}
	sort.Slice(all, func(i, j int) bool { return all[i].Name < all[j].Name })
	return all, errors.Join(bad...)
}

// Lookup returns template name's metadata. An unknown or damaged one is
// fault.NoTemplate.
func (s Store) Lookup(name string) (Info, error) {
	tarball, err := s.Path(name)
	if err != nil {
		return Info{}, err
	}
	f, err := os.Open(metadata(tarball))
	if errors.Is(err, fs.ErrNotExist) {
		return Info{}, s.missing(name)
	}
	if err != nil {
		return Info{}, fmt.Errorf("open template %q: %w", name, err)
	}
	defer f.Close()
	info, err := readInfo(f)
	if err == nil && info.Name != name {
		err = fmt.Errorf("metadata is of %q", info.Name)
	}
	if err == nil {
		err = checkSize(tarball, info.Size)
	}
	if err != nil {
		return Info{}, damaged(name, err)
	}
	return info, nil
}

func readInfo(r io.Reader) (Info, error) {
	var info Info
	raw, err := io.ReadAll(io.LimitReader(r, maxMetadata+1))
	switch {
	case err != nil:
		return info, err
	case len(raw) > maxMetadata:
		return info, errors.New("metadata too long")
	}
	if err := json.Unmarshal(raw, &info); err != nil {
		return info, err
	}
	sum, err := hex.DecodeString(info.SHA256)
	switch {
	case err != nil || len(sum) != 32:
		return info, fmt.Errorf("bad sha256 %q", info.SHA256)
	case info.Entries < 1 || info.Entries > maxEntries:
		return info, fmt.Errorf("bad entry count %d", info.Entries)
	case info.Unpacked < 0 || info.Unpacked > maxUnpacked:
		return info, fmt.Errorf("bad unpacked size %d", info.Unpacked)
	}
	return info, nil
}

func checkSize(tarball string, want int64) error {
	fi, err := os.Stat(tarball)
	if err == nil && fi.Size() != want {
		err = fmt.Errorf("tarball has %d bytes, not %d", fi.Size(), want)
	}
	return err
}

// Remove deletes template name.
func (s Store) Remove(name string) error {
	tarball, err := s.Path(name)
	if err != nil {
		return err
	}
	unlock, err := lock(context.Background(), s.cache(), exclusive)
	if errors.Is(err, fs.ErrNotExist) {
		return s.missing(name)
	}
	if err != nil {
		return err
	}
	defer unlock()
	first, second := os.Remove(metadata(tarball)), os.Remove(tarball)
	if errors.Is(first, fs.ErrNotExist) && errors.Is(second, fs.ErrNotExist) {
		return s.missing(name)
	}
	for _, err := range []error{first, second} {
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove template %q: %w", name, err)
		}
	}
	return nil
}

// Ensure is Lookup, but builds "minimal" first where it is missing: that takes
// less than two seconds and no network.
func (s Store) Ensure(ctx context.Context, name string) (Info, error) {
	info, err := s.Lookup(name)
	if name != Minimal || fault.KindOf(err) != fault.NoTemplate {
		return info, err
	}
	return s.Build(ctx, BuildOptions{Name: Minimal})
}

func (s Store) missing(name string) error {
	err := fault.New(fault.NoTemplate, "no template %q", name)
	if _, ok := recipes[name]; ok {
		return err.WithHint("Build it with `vztmpl build %s`.", name)
	}
	return err.WithHint("See `vztmpl list`, or build it with `vztmpl build %s --as %s`.",
		strings.Join(Buildable(), "|"), name)
}

func damaged(name string, cause error) error {
	return fault.New(fault.NoTemplate, "template %q is damaged: %w", name, cause).
		WithHint("Remove it with `vztmpl remove %s` and build it again.", name)
}
