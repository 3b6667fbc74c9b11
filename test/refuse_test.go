package test

import (
	"fmt"
	"strings"
	"testing"
)

// What can be refused is refused before anything has been changed: the
// container runs on, the destination is clean, and the message says what to do.
func TestRefusals(t *testing.T) {
	t.Parallel()
	c := running(t, takePair(t))
	src, dst := c.src.Name(), c.dst.Name()
	for _, r := range []struct {
		name string
		argv []string
		code int
		want string
	}{
		{"unknown container", []string{src, dst, "9999"}, 10, "container 9999 does not exist"},
		{"unknown name", []string{src, dst, "nosuch"}, 10, `container "nosuch" does not exist`},
		{"reserved number", []string{src, dst, "0"}, 1, `container id "0" is not in 1..`},
		{"same host by name", []string{src, src, c.ctid()}, 34, fmt.Sprintf("source and destination are both %q", src)},
		{"same host by address", []string{src, "root@" + c.src.Addr().String(), c.ctid()}, 34, "are the same host"},
		{"same host by identity", []string{src, "[" + c.src.Addr6().String() + "]", c.ctid()}, 34, "source and destination are the same host"},
		{"localhost seen from another host", []string{src, "localhost", c.ctid()}, 1, `"localhost" means another machine`},
		{"unknown host", []string{src, "no-such-host.invalid", c.ctid()}, 4, "no-such-host.invalid"},
		{"unknown source", []string{"no-such-host.invalid", dst, c.ctid()}, 4, "no-such-host.invalid"},
	} {
		o := admin(t).run(t, append([]string{"vzmigrate"}, r.argv...)...)
		t.Log(r.name)
		o.wants(t, r.code, "vzmigrate: error: ", r.want, "vzmigrate: hint: ")
	}
	c.src.run(t, "vzmigrate", src, c.ctid()).wants(t, 34, "source and destination are the same host", "hint: ")
	c.stays(t)
}

func TestStoppedWithLive(t *testing.T) {
	t.Parallel()
	c := newContainer(t, takePair(t))
	for _, flag := range []string{"--live", "--online"} {
		c.migrate(t, flag).wants(t, 2, fmt.Sprintf("container %d is not running", c.id), "hint: Leave out --live")
	}
	c.absentAt(t, c.dst)
	want := fmt.Sprintf("CTID %d exist unmounted down", c.id)
	if got := c.src.ok(t, "vzctl", "status", c.ctid()); got != want {
		t.Errorf("status %q, want %q", got, want)
	}
	c.src.ok(t, "vzctl", "mount", c.ctid())
	c.migrate(t).wants(t, 3, "is mounted", "vzctl umount")
	c.src.ok(t, "vzctl", "umount", c.ctid())
}

// The destination has a container of that number, or remains of one.
func TestTakenThere(t *testing.T) {
	t.Parallel()
	c := running(t, takePair(t))
	c.dst.ok(t, "vzctl", "create", c.ctid(), "--ostemplate", "minimal", "--hostname", "other")
	c.migrate(t).wants(t, 9, fmt.Sprintf("container %d is there already", c.id), "hint: ")
	record := fmt.Sprintf("/var/lib/vz/handover/%d.json", c.id)
	c.dst.ok(t, "mkdir", "-p", "/var/lib/vz/handover")
	c.dst.write(t, record, `{"id": "0", "to": "elsewhere", "at": "2026-01-02T03:04:05Z"}`)
	c.migrate(t).wants(t, 9, "handed to elsewhere since 2026-01-02 03:04:05 but not delivered", "hint: Deliver it there first: vzmigrate elsewhere")
	c.dst.ok(t, "rm", record)
	if got := c.dst.ok(t, "vzlist", "-H", "-a", "-o", "ctid,hostname,status"); got != c.ctid()+"  other  stopped" {
		t.Errorf("the other container is now %q", got)
	}
	c.dst.ok(t, "vzctl", "destroy", c.ctid())
	c.stays(t)

	area := fmt.Sprintf("/var/lib/vz/private/%d", c.id)
	c.dst.sh(t, "mkdir %s", area)
	c.migrate(t).wants(t, 9, area, "exists")
	c.dst.sh(t, "rmdir %s", area)
	c.stays(t)
}

// The address is another container's there, or something else's.
func TestAddressUsedThere(t *testing.T) {
	t.Parallel()
	c := running(t, takePair(t))
	other := &container{pair: c.pair}
	other.id, other.addr = nextCTID()
	c.dst.ok(t, "vzctl", "create", other.ctid(), "--ostemplate", "minimal", "--ipadd", c.addr)
	c.migrate(t).wants(t, 12, fmt.Sprintf("address %s is container %d's", c.addr, other.id))
	c.dst.ok(t, "vzctl", "destroy", other.ctid())
	c.stays(t)

	c.dst.sh(t, "ip addr add %s/32 dev lo", c.addr)
	c.migrate(t).wants(t, 12, fmt.Sprintf("address %s is in use", c.addr), "hint: ")
	c.dst.sh(t, "ip addr del %s/32 dev lo", c.addr)
	c.stays(t)
}

// A NAME is taken there.
func TestNameUsedThere(t *testing.T) {
	t.Parallel()
	c := running(t, takePair(t), "--name", "taken")
	other, _ := nextCTID()
	c.dst.ok(t, "vzctl", "create", fmt.Sprint(other), "--ostemplate", "minimal", "--name", "taken")
	c.migrate(t).wants(t, 9, fmt.Sprintf(`name "taken" is container %d's`, other))
	c.dst.ok(t, "vzctl", "destroy", "taken")
	c.stays(t)
}

const (
	criuPath = "/usr/local/lib/vzkit/criu/sbin/criu"
)

// hide puts file over what is at path, in the eyes of the host alone, until
// the test ends or restore is called.
func (h host) hide(t testing.TB, file, path string) (restore func()) {
	t.Helper()
	h.sh(t, "mount --bind %s %s", file, path)
	restore = func() { h.sh(t, "! mountpoint -q %s || umount %[1]s", path) }
	t.Cleanup(restore)
	return restore
}

// theCriu is where CRIU is on this machine.
func (h host) theCriu(t testing.TB) string {
	t.Helper()
	return h.sh(t, "ls %s 2>/dev/null || command -v criu", criuPath)
}

// A CRIU that does not work, at the destination or at the source.
func TestNoWorkingCriu(t *testing.T) {
	t.Parallel()
	c := running(t, takePair(t))
	empty := c.dst.sh(t, "f=$(mktemp /run/empty.XXXX); echo $f")
	for name, program := range map[string]string{"cannot run": empty, "fails": "/bin/false", "says nothing": "/bin/true"} {
		t.Log(name)
		restore := c.dst.hide(t, program, c.dst.theCriu(t))
		c.migrate(t).wants(t, 14, "vzmigrate: error: "+c.dst.Name()+": ", "criu", "hint: Run scripts/setup")
		restore()
		c.stays(t)
	}
	restore := c.src.hide(t, "/bin/false", c.src.theCriu(t))
	c.migrate(t).wants(t, 14, "criu", "hint: Run scripts/setup")
	restore()
	c.stays(t)
	c.migrate(t).wants(t, 0)
	c.moved(t)
}

// A destination without vzkit.
func TestNoVzkitThere(t *testing.T) {
	t.Parallel()
	c := running(t, takePair(t))
	empty := c.dst.sh(t, "d=$(mktemp -d /run/empty.XXXX); echo $d")
	restore := c.dst.hide(t, empty, binDir())
	c.migrate(t).wants(t, 14, c.dst.Name(), "has no vzmigrate on its PATH", "hint: Install vzkit there")
	restore()
	c.stays(t)
}

// Only one command at a time has a container.
func TestLocked(t *testing.T) {
	t.Parallel()
	c := running(t, takePair(t))
	c.narrow(t, c.src)
	first := admin(t).start(t, c.command()...)
	if !first.reaches("check") {
		t.Fatal(first.wait())
	}
	second := c.migrate(t)
	second.wants(t, 20, fmt.Sprintf("container %d is locked by vzmigrate since ", c.id), "hint: ")
	c.src.run(t, "vzctl", "stop", c.ctid()).wants(t, 9, "is locked by vzmigrate")
	c.dst.run(t, "vzctl", "create", c.ctid(), "--ostemplate", "minimal").wants(t, 9, "is locked by vzmigrate --receive")
	first.wait().wants(t, 0)
	c.moved(t)
}

// narrow makes what the host sends slow, so that the passes over the files
// take their time.
func (c *container) narrow(t testing.TB, h host) {
	t.Helper()
	h.sh(t, "tc qdisc add dev eth0 root tbf rate 24mbit burst 32k latency 200ms")
	t.Cleanup(func() { h.sh(t, "tc qdisc del dev eth0 root") })
	if got := h.sh(t, "tc qdisc show dev eth0"); !strings.Contains(got, "tbf") {
		t.Fatalf("queue is %q", got)
	}
}

// A command that somebody waits for outside would be lost by the move.
func TestCommandInside(t *testing.T) {
	t.Parallel()
	c := running(t, takePair(t))
	command := c.src.start(t, "vzctl", "exec", c.ctid(), "touch /began; sleep 1000")
	eventually(t, "command to begin", func() bool {
		return c.src.run(t, "vzctl", "exec", c.ctid(), "test -e /began").code == 0
	})
	c.migrate(t).wants(t, 8, "was started from outside", "vzctl exec", "hint: ")
	c.stays(t)
	command.interrupt()
	command.wait()
	eventually(t, "command to end", func() bool { return c.migrate(t).code == 0 })
}
