package test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// debian is the template of these tests: Debian 12 with sysvinit, sshd, cron,
// rsyslog, and Redis.
const debian = "debian-12-redis"

// templateDirs are where the template may have been built already: by these
// tests, or by the demonstration. It is built once on a machine.
var templateDirs = []string{"/var/cache/vzkit/template", "/var/lib/vzlab-demo/template"}

// building is held by whoever looks for the template, and builds it.
var building sync.Mutex

// debianStore is the directory of templates that has the template.
func debianStore(t *testing.T) string {
	t.Helper()
	building.Lock()
	defer building.Unlock()
	i := slices.IndexFunc(templateDirs, func(dir string) bool {
		_, err := os.Stat(filepath.Join(dir, "cache", debian+".json"))
		return err == nil
	})
	dir := templateDirs[max(i, 0)]
	if i < 0 {
		t.Logf("building the template %s in %s, this one time", debian, dir)
		command(t, filepath.Join(binDir(), "vztmpl"), "--dir", dir, "build", "debian-12", "--as", debian, "--include", "redis-server")
	}
	return dir
}

// needDebian puts the template among those of the lab's hosts.
func needDebian(t *testing.T) {
	t.Helper()
	dir := debianStore(t)
	for _, suffix := range []string{".tar.zst", ".json"} {
		command(t, "cp", filepath.Join(dir, "cache", debian+suffix), filepath.Join(theLab.Dir, "template/cache"))
	}
}

// services are the daemons that run in the container.
var services = []string{"init", "sshd", "cron", "rsyslogd", "redis-server"}

// Ten moves in a row of a whole Debian under writes: nothing is lost, no
// connection is reset, every service is the process that it was.
func TestDebianTenInARow(t *testing.T) {
	t.Parallel()
	needDebian(t)
	p := takePair(t)
	c := create(t, p, debian, "--hostname", "whole.example")
	p.src.ok(t, "vzctl", "start", c.ctid())
	eventually(t, "container to boot", func() bool { return len(c.services(t, p.src)) == len(services) })
	p.src.ok(t, "vzctl", "exec2", c.ctid(), `sed -i 's/^bind .*/bind 0.0.0.0/; s/^protected-mode .*/protected-mode no/' `+
		`/etc/redis/redis.conf && service redis-server restart`)
	c.load(t)
	before := c.services(t, p.src)
	book := c.keepBook(t)
	for i := range 10 {
		report := decode(t, c.migrate(t, "--json"))
		book.goesOn(t)
		t.Logf("move %d: %s", i+1, report.Summary())
		if after := c.services(t, c.dst); fmt.Sprint(after) != fmt.Sprint(before) {
			t.Errorf("after move %d the services are %v, were %v", i+1, after, before)
		}
		c = c.back()
	}
	book.isWhole(t)
	c.back().moved(t)
	c.stillWorks(t)
}

// services are the services' processes, as the container numbers them.
func (c *container) services(t testing.TB, h host) map[string]string {
	t.Helper()
	found := map[string]string{}
	for _, name := range services {
		o := h.run(t, "vzctl", "exec2", c.ctid(), "pgrep -o -x "+name)
		if pid := strings.TrimSpace(o.stdout); o.code == 0 && pid != "" {
			found[name] = pid
		}
	}
	return found
}

// stillWorks checks that the services do what they are there for.
func (c *container) stillWorks(t *testing.T) {
	t.Helper()
	c.src.ok(t, "vzctl", "exec2", c.ctid(), "logger moved-ten-times; for i in $(seq 100); do grep -q moved-ten-times /var/log/syslog && exit; sleep 0.1; done; exit 1")
	conn := c.dial(t, 22)
	defer conn.Close()
	banner := make([]byte, 8)
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(banner); err != nil || string(banner) != "SSH-2.0-" {
		t.Errorf("sshd says %q, %v", banner, err)
	}
	if got := c.src.ok(t, "vzctl", "exec2", c.ctid(), "hostname; runlevel"); got != "whole.example\nN 2" {
		t.Errorf("container says %q", got)
	}
}

// command runs a program on the machine itself.
func command(t *testing.T, argv ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	if out, err := exec.CommandContext(ctx, argv[0], argv[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", argv, err, out)
	}
}
