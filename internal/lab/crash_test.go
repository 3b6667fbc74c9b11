package lab_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/vzkit/vzkit/internal/lab"
	"github.com/vzkit/vzkit/internal/mountns"
)

func TestUpMendsKilledHosts(t *testing.T) {
	l := up(t, 2)
	for _, victims := range [][]string{{"alpha"}, {"admin"}, {"alpha", "beta", "admin"}} {
		for _, name := range victims {
			h := host(t, l, name)
			if err := syscall.Kill(h.Pid(), syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			eventually(t, name+" to die", func() bool { return h.Pid() == 0 })
		}
		before := pidsOf(l)
		mended, err := lab.Up(t.Context(), lab.Config{Dir: l.Dir, Hosts: 2, Bin: l.Bin})
		if err != nil {
			t.Fatal(err)
		}
		for _, h := range mended.Hosts() {
			if was := fmt.Sprintf("%s=%d ", h.Name(), h.Pid()); len(victims) < 3 &&
				h.Name() == "beta" && !strings.Contains(before, was) {
				t.Errorf("beta was restarted: %s, before %s", was, before)
			}
		}
		if got := run(t, host(t, mended, "beta"), "ssh -o BatchMode=yes alpha ssh -o BatchMode=yes beta hostname"); got != "beta" {
			t.Errorf("beta says %q", got)
		}
	}
}

func TestUpMendsNetwork(t *testing.T) {
	l := up(t, 1)
	alpha := host(t, l, "alpha")
	pid := alpha.Pid()
	run(t, alpha, "ip link del eth0")
	if _, err := lab.Up(t.Context(), lab.Config{Dir: l.Dir, Hosts: 1, Bin: l.Bin}); err != nil {
		t.Fatal(err)
	}
	if alpha.Pid() != pid {
		t.Error("alpha was restarted")
	}
	if got := run(t, host(t, l, "admin"), "ssh -o BatchMode=yes alpha hostname"); got != "alpha" {
		t.Errorf("alpha says %q", got)
	}
}

func TestHostRestartsSSHD(t *testing.T) {
	l := up(t, 1)
	alpha := host(t, l, "alpha")
	run(t, alpha, "pkill -KILL -o -x sshd")
	eventually(t, "sshd to come back", func() bool {
		return host(t, l, "admin").Command(t.Context(), "ssh", "-o", "BatchMode=yes", "alpha", "true").Run() == nil
	})
}

// An up that is killed at any step leaves what down removes, and what another
// up can build on.
func TestKilledUp(t *testing.T) {
	bin := binDir(t)
	for _, step := range []string{"state", "ssh/known_hosts", "alpha/init.log", "alpha/pid", "beta/pid", "alpha/sshd.log"} {
		t.Run(strings.ReplaceAll(step, "/", "-"), func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "lab")
			killAt(t, bin, dir, step)
			if err := lab.Down(t.Context(), dir, true); err != nil {
				t.Fatal(err)
			}
			wantNothing(t, dir)

			killAt(t, bin, dir, step)
			l, err := lab.Up(t.Context(), lab.Config{Dir: dir, Bin: bin})
			if err != nil {
				t.Fatal(err)
			}
			if got := run(t, host(t, l, "alpha"), "ssh -o BatchMode=yes beta hostname"); got != "beta" {
				t.Errorf("beta says %q", got)
			}
			if err := l.Down(); err != nil {
				t.Fatal(err)
			}
			wantNothing(t, dir)
		})
	}
}

// killAt runs vzlab up and kills it as soon as the file is there.
func killAt(t *testing.T, bin, dir, file string) {
	t.Helper()
	cmd := vzlab(t, bin, dir, "up")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Lstat(filepath.Join(dir, file)); err == nil {
			break
		}
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
}

// An up that fails takes down what it has made, and only that.
func TestFailedUp(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "lab")
	if err := os.MkdirAll(filepath.Join(dir, "beta", "sshd_config"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := lab.Up(t.Context(), lab.Config{Dir: dir}); err == nil || !strings.Contains(err.Error(), "host beta") {
		t.Fatalf("up: %v", err)
	}
	wantNothing(t, dir)

	l := up(t, 1)
	pids := pidsOf(l)
	if err := os.MkdirAll(filepath.Join(l.Dir, "beta", "sshd_config"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := lab.Up(t.Context(), lab.Config{Dir: l.Dir, Hosts: 2, Bin: l.Bin}); err == nil {
		t.Fatal("up succeeded")
	}
	if got := pidsOf(l); got != pids {
		t.Errorf("hosts are %s, were %s", got, pids)
	}
}

// Frozen processes, as a crashed migration leaves them, do not hold up down.
func TestDownKillsFrozen(t *testing.T) {
	l := up(t, 1)
	run(t, host(t, l, "alpha"), `
		d=$(awk '$3 == "cgroup" && $4 ~ /freezer/ || $3 == "cgroup2" {print $2}' /proc/mounts | head -1)
		mkdir $d/frozen
		sleep 1000 >/dev/null 2>&1 &
		until grep -q sleep /proc/$!/comm; do :; done
		echo $! >$d/frozen/cgroup.procs
		if test -e $d/frozen/freezer.state
		then echo FROZEN >$d/frozen/freezer.state
		else echo 1 >$d/frozen/cgroup.freeze
		fi`)
}

// In a chroot whose root is no mount point, below mounts that propagate, the
// lab works just as well and still leaves the machine's mounts alone.
func TestChroot(t *testing.T) {
	bin := binDir(t)
	exe, err := filepath.EvalSymlinks(filepath.Join(bin, "vzlab"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "sh", "-euc", chrootScript, "sh", t.TempDir(), exe)
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	mountns.Private(cmd.SysProcAttr)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

const chrootScript = `
	root=$1/root
	mkdir $1/machine
	mount -t tmpfs tmpfs $1
	mkdir -p $root/bin.lab $root/tmp $root/run $root/root $root/var/lib $root/var/empty
	for d in bin lib lib64 sbin; do test -e /$d && ln -s usr/$d $root/$d; done
	for d in usr dev proc sys; do mkdir $root/$d; mount --rbind /$d $root/$d; done
	cp -a /etc $root/etc
	rm -rf $root/etc/vz
	cp "$2" $root/bin.lab/vzlab
	mount --make-rshared / 2>/dev/null || mount --make-rshared $1 # where this is a chroot already
	before=$(wc -l </proc/self/mountinfo)
	inside() { chroot $root "$@"; }
	trap 'inside /bin.lab/vzlab down --all' EXIT
	inside /bin.lab/vzlab up 1
	test $(wc -l </proc/self/mountinfo) = $before
	test "$(inside /bin.lab/vzlab exec admin -- ssh -o BatchMode=yes alpha hostname)" = alpha
	# The host's root is one that a container's init can pivot away from, and no chroot to the kernel.
	inside /bin.lab/vzlab exec alpha -- unshare --user true
	inside /bin.lab/vzlab exec alpha -- unshare --mount sh -euc '
		mkdir /run/new; mount --bind / /run/new; cd /run/new
		mkdir -p run/old; pivot_root . run/old; test -e /bin.lab/vzlab'
	inside /bin.lab/vzlab down --all
	! test -e $root/etc/vz; ! test -e $root/var/lib/vz; ! test -e $root/var/lib/vzlab; ! test -e $root/root/.ssh
	test $(wc -l </proc/self/mountinfo) = $before
`
