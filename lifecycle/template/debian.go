package template

import (
	"context"
	_ "embed" // the scripts
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/vzkit/vzkit/internal/fault"
)

//go:embed bootstrap.sh
var bootstrapScript string

//go:embed install.sh
var installScript string

//go:embed finish.sh
var finishScript string

// systemPackages make a debootstrap minbase tree a system: init, and what
// people expect to find running. rsyslog's start-up script for sysvinit is in
// orphan-sysvinit-scripts.
var systemPackages = []string{
	"sysvinit-core", "cron", "rsyslog", "orphan-sysvinit-scripts", "openssh-server", "iproute2", "procps", "netbase",
}

// hostScripts are the start-up scripts that get no run level, by file name,
// because they mount, or touch hardware, or act on the host. See the package
// comment.
var hostScripts = []string{
	"brightness", "checkfs.sh", "checkroot-bootclean.sh", "checkroot.sh", "halt", "hwclock.sh", "kmod",
	"mount-configfs", "mountall-bootclean.sh", "mountall.sh", "mountdevsubfs.sh", "mountkernfs.sh",
	"mountnfs-bootclean.sh", "mountnfs.sh", "procps", "reboot", "udev", "umountfs", "umountnfs.sh",
	"umountroot", "urandom",
}

// override is an insserv override: a script of this name starts and stops in
// no run level.
const override = `### BEGIN INIT INFO
# Provides:          %s
# Required-Start:
# Required-Stop:
# Default-Start:
# Default-Stop:
# Short-Description: Not in a container
### END INIT INFO
`

// archiveKeyring has the keys of all Debian releases.
const archiveKeyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

// release is a Debian release that Build knows.
type release struct {
	version, codename string
	packages          []string // more that this release needs
}

// prepare refuses what cannot work and returns the build.
func (r release) prepare(o BuildOptions) (maker, error) {
	tools := map[string]string{"debootstrap": "debootstrap", "apt-config": "apt", "dpkg-query": "dpkg"}
	if err := needTools(tools); err != nil {
		return nil, err
	}
	sources, err := readSources("/etc/apt")
	if err != nil {
		return nil, fmt.Errorf("read apt sources: %w", err)
	}
	osRelease, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return nil, fmt.Errorf("read os-release: %w", err)
	}
	from, ok := findArchive(sources, codenameOf(string(osRelease)), r.codename)
	if !ok {
		return nil, fault.New(fault.NoTemplate, "no debian archive in the apt sources").
			WithHint("Add one to /etc/apt/sources.list.d: `deb URI %s main`, over http or https.", r.codename)
	}
	packages := append(append(append([]string{}, systemPackages...), r.packages...), o.Packages...)
	return func(ctx context.Context, b *build) error { return r.make(ctx, b, from, packages) }, nil
}

func (r release) make(ctx context.Context, b *build, from archive, packages []string) error {
	b.Distribution, b.Release = "debian", r.version
	if err := os.MkdirAll(b.debs, 0o755); err != nil {
		return fmt.Errorf("make package cache: %w", err)
	}
	env := proxies(ctx)
	for _, s := range []struct {
		name string
		do   func() error
	}{
		{"debootstrap " + r.codename, func() error { return r.bootstrap(ctx, b, from, env) }},
		{fmt.Sprintf("install %d packages", len(packages)), func() error { return r.install(ctx, b, from, packages, env) }},
		{"tune", func() error { return b.finish(ctx) }},
	} {
		if err := b.step(ctx, s.name, s.do); err != nil {
			return unbuilt(b.Name, s.name, err)
		}
	}
	return nil
}

func unbuilt(name, step string, err error) error {
	var has *fault.Error
	if errors.As(err, &has) {
		return err
	}
	return fault.New(fault.NoTemplate, "build template %q: %s: %w", name, step, err).
		WithHint("Check that `apt-get update` works on this machine and that the disk is not full.")
}

// proxies returns the environment that makes debootstrap and apt use the
// proxies of the machine's apt configuration.
func proxies(ctx context.Context) []string {
	var env []string
	for _, scheme := range []string{"http", "https"} {
		out, err := exec.CommandContext(ctx, "apt-config", "dump", "--format", "%v", "Acquire::"+scheme+"::Proxy").Output()
		proxy := strings.TrimSpace(string(out))
		if err == nil && proxy != "" && proxy != "DIRECT" && proxy != "false" {
			env = append(env, scheme+"_proxy="+proxy)
		}
	}
	return env
}

// bootstrap makes the tree of essential packages. What must hold from the
// first package on is put there before: no daemon starts, dpkg does not sync.
func (r release) bootstrap(ctx context.Context, b *build, from archive, env []string) error {
	err := b.edit(func(root *os.Root) error {
		return errors.Join(
			writeFile(root, "usr/sbin/policy-rc.d", []byte("#!/bin/sh\nexit 101\n"), 0o755),
			writeFile(root, "etc/dpkg/dpkg.cfg.d/vz-build", []byte("force-unsafe-io\n"), 0o644),
		)
	})
	if err != nil {
		return err
	}
	keyring, include := archiveKeyring, ""
	if _, err := os.Stat(keyring); err != nil {
		keyring = ""
	}
	if strings.Contains(from.lines(r.codename), "https://") {
		include = "ca-certificates"
	}
	return script{text: bootstrapScript, env: env, args: []string{r.codename, b.root, from.main, b.debs, keyring, include}}.run(ctx)
}

// install adds packages from all of the archive's suites. The overrides come
// first, so that the scripts they are for never enter a run level.
func (r release) install(ctx context.Context, b *build, from archive, packages, env []string) error {
	err := b.edit(func(root *os.Root) error {
		for _, name := range hostScripts {
			text := fmt.Sprintf(override, strings.TrimSuffix(name, ".sh"))
			if err := writeFile(root, "etc/insserv/overrides/"+name, []byte(text), 0o644); err != nil {
				return err
			}
		}
		return writeFile(root, "etc/apt/sources.list", []byte(from.lines(r.codename)), 0o644)
	})
	if err != nil {
		return err
	}
	err = script{text: installScript, env: env, args: append([]string{b.root, b.debs}, packages...)}.run(ctx)
	if err != nil {
		return err
	}
	list, err := exec.CommandContext(ctx, "dpkg-query", "--admindir="+filepath.Join(b.root, "var/lib/dpkg"),
		"-W", "-f", "${Package}=${Version}\n").Output()
	if err != nil {
		return fmt.Errorf("list packages: %w", err)
	}
	b.Packages = strings.Fields(string(list))
	return nil
}

// finish turns the tree into a container's.
func (b *build) finish(ctx context.Context) error {
	if err := b.edit(func(root *os.Root) error { return overlay(root, "debian") }); err != nil {
		return err
	}
	return script{text: finishScript, chroot: b.root}.run(ctx)
}

// edit gives do the tree, which it cannot leave.
func (b *build) edit(do func(root *os.Root) error) error {
	root, err := os.OpenRoot(b.root)
	if err != nil {
		return fmt.Errorf("open build root: %w", err)
	}
	defer root.Close()
	return do(root)
}
