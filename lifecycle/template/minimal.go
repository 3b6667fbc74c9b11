package template

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"regexp"
	"strings"

	"github.com/vzkit/vzkit/internal/fault"
)

// busyboxPath is where Debian's busybox-static puts it.
const busyboxPath = "/bin/busybox"

// minimalDirs are the directories of the minimal template, with their modes.
var minimalDirs = map[string]os.FileMode{
	"bin": 0o755, "dev": 0o755, "dev/pts": 0o755, "dev/shm": os.ModeSticky | 0o777, "etc": 0o755, "etc/rc.d": 0o755,
	"home": 0o755, "mnt": 0o755, "proc": 0o555, "root": 0o700, "run": 0o755, "sbin": 0o755, "sys": 0o555,
	"tmp": os.ModeSticky | 0o777, "usr": 0o755, "usr/bin": 0o755, "usr/sbin": 0o755, "var": 0o755, "var/lib": 0o755,
	"var/log": 0o755, "var/tmp": os.ModeSticky | 0o777,
}

func prepareMinimal(o BuildOptions) (maker, error) {
	if len(o.Packages) > 0 {
		return nil, fault.New(fault.BadValue, "template %q takes no packages", o.Name).
			WithHint("Use one of Debian's templates for packages.")
	}
	if err := checkStatic(busyboxPath); err != nil {
		return nil, err
	}
	return makeMinimal, nil
}

// checkStatic refuses a program that needs a dynamic linker: an ELF file with
// a PT_INTERP segment, elf(5).
func checkStatic(program string) error {
	f, err := elf.Open(program)
	if err == nil {
		defer f.Close()
		for _, p := range f.Progs {
			if p.Type == elf.PT_INTERP {
				err = errors.New("dynamically linked")
			}
		}
	}
	if err != nil {
		return fault.New(fault.NoTemplate, "no static busybox %q: %w", program, err).
			WithHint("Install the package busybox-static.")
	}
	return nil
}

func makeMinimal(ctx context.Context, b *build) error {
	return b.step(ctx, "busybox", func() error {
		root, err := os.OpenRoot(b.root)
		if err != nil {
			return fmt.Errorf("open build root: %w", err)
		}
		defer root.Close()
		for dir, mode := range minimalDirs {
			if err := errors.Join(makeDirs(root, dir), root.Chmod(dir, mode)); err != nil {
				return fmt.Errorf("make dir %q: %w", dir, err)
			}
		}
		if err := overlay(root, "minimal"); err != nil {
			return err
		}
		return b.installBusybox(ctx, root)
	})
}

var busyboxVersion = regexp.MustCompile(`^BusyBox v(\S+)`)

// installBusybox copies busybox and links its applets to it.
func (b *build) installBusybox(ctx context.Context, root *os.Root) error {
	program, err := os.ReadFile(busyboxPath)
	if err != nil {
		return fmt.Errorf("read busybox: %w", err)
	}
	if err := writeFile(root, "bin/busybox", program, 0o755); err != nil {
		return err
	}
	help, err := exec.CommandContext(ctx, busyboxPath).Output()
	if err != nil {
		return fmt.Errorf("ask busybox for its version: %w", err)
	}
	b.Distribution, b.Release = "busybox", "unknown"
	if m := busyboxVersion.FindSubmatch(help); m != nil {
		b.Release = string(m[1])
	}
	b.Packages = []string{"busybox=" + b.Release}
	list, err := exec.CommandContext(ctx, busyboxPath, "--list-full").Output()
	if err != nil {
		return fmt.Errorf("list busybox applets: %w", err)
	}
	return linkApplets(root, strings.Fields(string(list)))
}

func linkApplets(root *os.Root, applets []string) error {
	for _, applet := range applets {
		if applet == "bin/busybox" || applet == "linuxrc" {
			continue
		}
		if err := makeDirs(root, path.Dir(applet)); err != nil {
			return err
		}
		if err := root.Symlink(busyboxPath, applet); err != nil {
			return fmt.Errorf("link applet %q: %w", applet, err)
		}
	}
	return nil
}
