package template

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"sort"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/internal/undo"
)

// Minimal is the template that is built on demand.
const Minimal = "minimal"

// BuildOptions say what to build.
type BuildOptions struct {
	Name     string            // one of Buildable
	As       string            // name to store it under; Name if empty
	Packages []string          // more packages, for Debian's templates
	Progress func(step string) // called after each step, e.g. "pack: 1.2 s"; may be nil
}

// recipes has what Build knows. A recipe makes every refusal that can be made
// before anything is changed, and returns what fills the tree.
var recipes = map[string]func(BuildOptions) (maker, error){
	Minimal:     prepareMinimal,
	"debian-12": release{version: "12", codename: "bookworm"}.prepare,
	"debian-13": release{version: "13", codename: "trixie", packages: []string{"systemd-standalone-sysusers"}}.prepare,
}

type maker func(ctx context.Context, b *build) error

// build is one template in the making.
type build struct {
	Info
	work     string // build-XXXX
	root     string // the tree that becomes the tarball
	debs     string // .deb files kept from build to build
	progress func(string)
}

// Buildable returns the names that Build knows.
func Buildable() []string {
	names := make([]string, 0, len(recipes))
	for name := range recipes {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

// Build makes a template and replaces what had its name. If it fails or ctx
// ends, nothing of it stays behind.
func (s Store) Build(ctx context.Context, o BuildOptions) (info Info, err error) {
	if o.As == "" {
		o.As = o.Name
	}
	if _, err := s.Path(o.As); err != nil {
		return Info{}, err
	}
	mk, err := prepare(o)
	if err != nil {
		return Info{}, err
	}
	if err := os.MkdirAll(s.cache(), 0o755); err != nil {
		return Info{}, fmt.Errorf("make template dir: %w", err)
	}
	unlock, err := lock(ctx, s.Dir, exclusive)
	if err != nil {
		return Info{}, err
	}
	defer unlock()
	var u undo.Stack
	defer func() { err = errors.Join(err, u.Run()) }()
	b, err := s.begin(&u, o)
	if err != nil {
		return Info{}, err
	}
	if err := b.run(ctx, mk); err != nil {
		return Info{}, err
	}
	if err := s.commit(ctx, b); err != nil {
		return Info{}, err
	}
	return b.Info, nil
}

var validPackage = regexp.MustCompile(`^[a-z0-9][a-z0-9+.-]+$`)

// prepare makes the refusals and returns what fills the tree.
func prepare(o BuildOptions) (maker, error) {
	recipe, ok := recipes[o.Name]
	if !ok {
		return nil, fault.New(fault.NoTemplate, "cannot build template %q", o.Name).
			WithHint("Templates that can be built: %v.", Buildable())
	}
	if os.Geteuid() != 0 {
		return nil, fault.New(fault.Permission, "build template %q: not root", o.Name).
			WithHint("Run it as root.")
	}
	for _, p := range o.Packages {
		if !validPackage.MatchString(p) {
			return nil, fault.New(fault.BadValue, "bad package name %q", p).
				WithHint("Give the names of Debian packages, separated by commas.")
		}
	}
	return recipe(o)
}

// begin removes what killed builds left (the caller holds the lock, so none
// lives) and makes the directory for this one.
func (s Store) begin(u *undo.Stack, o BuildOptions) (*build, error) {
	base, err := filepath.Abs(s.Dir)
	if err != nil {
		return nil, fmt.Errorf("find template dir: %w", err)
	}
	stale, err := filepath.Glob(filepath.Join(base, "build-*"))
	if err != nil {
		return nil, fmt.Errorf("find stale builds: %w", err)
	}
	for _, dir := range stale {
		if err := os.RemoveAll(dir); err != nil {
			return nil, fmt.Errorf("remove stale build: %w", err)
		}
	}
	work, err := os.MkdirTemp(base, "build-")
	if err != nil {
		return nil, fmt.Errorf("make build dir: %w", err)
	}
	u.Push("remove build dir", func() error { return os.RemoveAll(work) })
	b := &build{work: work, root: filepath.Join(work, "root"), debs: filepath.Join(base, "debs"), progress: o.Progress}
	b.Info = Info{Name: o.As, Arch: runtime.GOARCH}
	if err := os.Mkdir(b.root, 0o755); err != nil {
		return nil, fmt.Errorf("make build root: %w", err)
	}
	return b, os.Chmod(b.root, 0o755)
}

func (b *build) run(ctx context.Context, mk maker) error {
	if err := mk(ctx, b); err != nil {
		return err
	}
	sort.Strings(b.Packages)
	return b.step(ctx, "pack", func() error { return b.pack(ctx) })
}

// step runs do unless ctx has ended, and reports its time.
func (b *build) step(ctx context.Context, name string, do func() error) error {
	if ctx.Err() != nil {
		return fault.Ended(ctx)
	}
	start := time.Now()
	err := do()
	if ctx.Err() != nil {
		return fault.Ended(ctx)
	}
	if err == nil && b.progress != nil {
		b.progress(fmt.Sprintf("%s: %.1f s", name, time.Since(start).Seconds()))
	}
	return err
}

func (b *build) tarball() string { return filepath.Join(b.work, "tar.zst") }

// pack writes the tree as the tarball and fills in what Info says about it.
func (b *build) pack(ctx context.Context) error {
	f, err := os.OpenFile(b.tarball(), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return fmt.Errorf("make tarball: %w", err)
	}
	defer f.Close()
	sum := sha256.New()
	z, err := zstd.NewWriter(io.MultiWriter(f, sum))
	if err != nil {
		return fmt.Errorf("start zstd: %w", err)
	}
	b.Entries, b.Unpacked, err = pack(ctx, b.root, z)
	if err = errors.Join(err, z.Close()); err != nil {
		return fmt.Errorf("pack template: %w", err)
	}
	fi, err := f.Stat()
	if err != nil {
		return fmt.Errorf("stat tarball: %w", err)
	}
	b.Size, b.SHA256, b.Built = fi.Size(), hex.EncodeToString(sum.Sum(nil)), time.Now().UTC().Truncate(time.Second)
	return f.Sync()
}

// commit makes the finished template visible: the old metadata goes first and
// the new comes last, so that no tarball is ever seen with another's.
func (s Store) commit(ctx context.Context, b *build) error {
	js, err := json.MarshalIndent(b.Info, "", "  ")
	if err != nil {
		return fmt.Errorf("encode metadata: %w", err)
	}
	fresh := filepath.Join(b.work, "json")
	if err := writeSynced(fresh, append(js, '\n')); err != nil {
		return fmt.Errorf("write metadata: %w", err)
	}
	unlock, err := lock(ctx, s.cache(), exclusive)
	if err != nil {
		return err
	}
	defer unlock()
	tarball, err := s.Path(b.Name)
	if err != nil {
		return err
	}
	if err := os.Remove(metadata(tarball)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("replace template: %w", err)
	}
	if err := os.Rename(b.tarball(), tarball); err != nil {
		return fmt.Errorf("replace template: %w", err)
	}
	if err := os.Rename(fresh, metadata(tarball)); err != nil {
		return fmt.Errorf("replace template: %w", err)
	}
	return syncDir(s.cache())
}

func writeSynced(name string, data []byte) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Sync(), f.Close())
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
