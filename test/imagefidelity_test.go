package test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vzkit/vzkit/internal/treecheck"
)

// treeVariable makes this program act on trees that are mounted on a host:
// "generate" one, "mutate" one, "compare" two.
const treeVariable = "VZKIT_TEST_TREE"

// playGardener is that program's side; its arguments are the trees.
func playGardener() {
	act, found := treeActs[os.Getenv(treeVariable)]
	if !found {
		return
	}
	if err := act(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

var treeActs = map[string]func(roots []string) error{
	"generate": func(roots []string) error {
		return treecheck.Generate(roots[0], 1, treecheck.Options{Entries: 300, Crowd: 1000, Flags: true, Large: true})
	},
	"mutate": func(roots []string) error {
		_, err := treecheck.Mutate(roots[0], 1, 300, treecheck.Options{Flags: true})
		return err
	},
	"compare": func(roots []string) error { return treesDiffer(roots[0], roots[1]) },
}

// onTree is the command for that.
func onTree(t *testing.T, act string, roots ...string) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%s=%s %s %s %s", treeVariable, act, quickExit, self, strings.Join(roots, " "))
}

// A container's image goes by blocks while its files are changed. It then holds
// what that of the source does, which stays where it was.
func TestFidelityOfImage(t *testing.T) {
	t.Parallel()
	c := imaged(t, takePair(t))
	c.mounted(t, "mkdir d && dd if=/dev/urandom of=random bs=1M count=30 2>/dev/null && "+onTree(t, "generate", "d"))
	c.src.ok(t, "vzctl", "start", c.ctid())
	c.narrow(t, c.src)
	move := admin(t).start(t, c.command("--json", "-r", "no")...)
	eventually(t, "image to come", func() bool {
		return c.dst.run(t, "sh", "-c", fmt.Sprintf("ls /var/lib/vz/private/.*-%d-*/root.img", c.id)).code == 0
	})
	c.src.sh(t, "%s", onTree(t, "mutate", fmt.Sprintf("/var/lib/vz/root/%d/d", c.id)))
	c.src.sh(t, "tc qdisc change dev eth0 root tbf rate 10gbit burst 10m latency 200ms")
	wentBy(t, decode(t, move.wait()), "blocks")
	c.dst.ok(t, "vzctl", "stop", c.ctid(), "--fast")
	c.hasLoops(t, "0")
	c.sameImage(t)
	c.src.sh(t, "rm -r /var/lib/vz/private/%d", c.id)
}

// sameImage compares what the image on the destination holds with what that on
// the source does, both mounted on the destination, where nothing of it stays.
func (c *container) sameImage(t *testing.T) {
	t.Helper()
	image := func(h host) string {
		return filepath.Join(theLab.Dir, h.Name(), fmt.Sprintf("var-lib-vz/private/%d/root.img", c.id))
	}
	c.dst.sh(t, `set -e; cd "$(mktemp -d /run/fidelity-XXXXXX)"; mkdir want got
		trap 'umount want got 2>/dev/null || true; rm -d want got; rm -d "$PWD"' EXIT
		mount -o loop,ro,noatime %s want; mount -o loop,ro,noatime %s got
		%s`, image(c.src), image(c.dst), onTree(t, "compare", "want", "got"))
}

// treesDiffer is an error that holds what is different about two trees.
func treesDiffer(src, dst string, except ...string) error {
	want, err := treecheck.Snapshot(src)
	if err != nil {
		return err
	}
	got, err := treecheck.Snapshot(dst)
	if err != nil {
		return err
	}
	var errs []error
	for _, d := range treecheck.Without(treecheck.Compare(want, got), except...) {
		errs = append(errs, errors.New(d.String()))
	}
	return errors.Join(append(errs, treecheck.CompareByRsync(src, dst))...)
}
