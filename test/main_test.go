package test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/vzkit/vzkit/internal/lab"
	"github.com/vzkit/vzkit/internal/undo"
)

// ground is where the suite keeps its lab, and what it copies there so that a
// build during a run changes nothing. A run that was killed is cleaned up by
// the next one.
const ground = "/var/tmp/vzkit-test"

// pairs is how many migrations may go on at once.
const pairs = 3

var theLab *lab.Lab

func TestMain(m *testing.M) {
	lab.Init()
	playLiar()
	playGardener()
	flag.Parse()
	if flag.Lookup("test.parallel").Value.String() < "4" {
		_ = flag.Set("test.parallel", "4") // much of the time is waiting
	}
	code, err := runAll(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "test:", err)
		code = 1
	}
	os.Exit(code)
}

// runAll runs the tests in a lab, takes that down and looks for leaks.
func runAll(m *testing.M) (code int, err error) {
	if os.Geteuid() != 0 {
		return 1, errors.New("needs root, for namespaces and CRIU")
	}
	if err := os.MkdirAll(ground, 0o755); err != nil {
		return 1, err
	}
	var u undo.Stack
	defer func() { err = errors.Join(err, u.Run(), leaks()) }()
	unlock, err := onlyOne()
	if err != nil {
		return 1, err
	}
	u.Push("remove "+ground, func() error { defer unlock(); return os.RemoveAll(ground) })
	if err := bringUp(&u); err != nil {
		return 1, err
	}
	return m.Run(), nil
}

// onlyOne waits until no other run uses the ground.
func onlyOne() (unlock func(), err error) {
	dir, err := os.Open(ground)
	if err != nil {
		return nil, err
	}
	return func() { dir.Close() }, syscall.Flock(int(dir.Fd()), syscall.LOCK_EX)
}

func bringUp(u *undo.Stack) error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	dir := filepath.Join(ground, "lab")
	if err := lab.Down(ctx, dir, true); err != nil {
		return fmt.Errorf("clean up after an earlier run: %w", err)
	}
	if err := errors.Join(copyPrograms(), buildSubject(ctx)); err != nil {
		return err
	}
	u.Push("take lab down", func() error { return lab.Down(context.Background(), dir, true) })
	var err error
	theLab, err = lab.Up(ctx, lab.Config{Dir: dir, Hosts: 2 * pairs, Bin: binDir()})
	if err != nil {
		return err
	}
	return fillPool(ctx)
}

func binDir() string { return filepath.Join(ground, "bin") }

// copyPrograms takes the programs as they are built now.
func copyPrograms() error {
	if err := os.MkdirAll(binDir(), 0o755); err != nil {
		return err
	}
	for _, name := range []string{"vzctl", "vzlist", "vzmigrate", "vztmpl", "vzlab", "vzbench"} {
		program, err := os.ReadFile(filepath.Join("..", "bin", name))
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("no program bin/%s: build it first, with: make build", name)
		}
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(binDir(), name), program, 0o755); err != nil {
			return err
		}
	}
	return nil
}

// buildSubject builds the static program that runs inside containers.
func buildSubject(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", filepath.Join(binDir(), "subject"), "./subject")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build subject: %w\n%s", err, out)
	}
	return nil
}
