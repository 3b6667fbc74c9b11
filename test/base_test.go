package test

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/vzkit/vzkit/migrate"
)

// bulk is a script that makes 24 MiB of files that do not compress, in one
// large and many small ones.
const bulk = `mkdir -p /data && cd /data && dd if=/dev/urandom of=large bs=1M count=16 2>/dev/null && i=0 &&
	while [ $i -lt 256 ]; do dd if=/dev/urandom of=small$i bs=32k count=1 2>/dev/null; i=$((i+1)); done`

// changes is a script that changes a little of that.
const changes = `cd /data && dd if=/dev/urandom of=large bs=1k count=1 seek=5000 conv=notrunc 2>/dev/null &&
	echo more >>small7 && mv small8 moved && rm small9 && mkdir new && echo new >new/file`

// withBulk is a stopped container with files.
func withBulk(t *testing.T, p pair, options ...string) *container {
	t.Helper()
	c := create(t, p, "minimal", options...)
	c.within(t, bulk)
	return c
}

// within runs a script in the stopped container.
func (c *container) within(t *testing.T, script string) {
	t.Helper()
	c.src.ok(t, "vzctl", "start", c.ctid())
	c.src.ok(t, "vzctl", "exec2", c.ctid(), script)
	c.src.ok(t, "vzctl", "stop", c.ctid(), "--fast")
}

// usedBase tells whether a report has the phase in which a base is told of.
func usedBase(r migrate.Report) bool {
	for _, p := range r.Phases {
		if p.Name == "base" {
			return true
		}
	}
	return false
}

// content is how many bytes of files a move has sent.
func content(r migrate.Report) (n uint64) {
	for _, p := range r.Passes {
		n += p.Bytes
	}
	return n
}

// sendsLess checks that a move had a base, and sent less than a part of what
// another one did.
func sendsLess(t *testing.T, r migrate.Report, percent, whole uint64) {
	t.Helper()
	if !usedBase(r) || r.WireBytes*100 > whole*percent {
		t.Errorf("base: %v; sent %d bytes, want less than %d %% of %d", usedBase(r), r.WireBytes, percent, whole)
	}
	t.Logf("sent %d bytes of %d", r.WireBytes, whole)
}

// area describes the private area of the container on h, by all that a use of it
// would change.
func (c *container) area(t *testing.T, h host) string {
	t.Helper()
	return h.sh(t, `cd /var/lib/vz/private/%d && find . -printf '%%p %%i %%y %%m %%U:%%G %%s %%T@ %%C@ %%l\n' | sort &&
		find . -type f -print0 | sort -z | xargs -0 sha256sum`, c.id)
}

// aloneAt checks that beside the container nothing is on h, and no record of
// anything. What was kept there goes when nobody waits for it any more.
func (c *container) aloneAt(t *testing.T, h host) {
	t.Helper()
	var left string
	for end := time.Now().Add(15 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		left = h.sh(t, `ls -A /var/lib/vz/private; ls -A /var/lib/vz/handover | grep "^%d\.[^a]" || true`, c.id)
		if left == c.ctid() {
			return
		}
	}
	t.Errorf("on %s, beside the container:\n%s\n%s", h.Name(), left, h.sh(t, "ls -lAR /var/lib/vz/private/.[a-z]*; ps axf"))
}

// A container that comes back to where its files were kept sends what has
// changed; what was kept gives way to it.
func TestMoveBackToKeptArea(t *testing.T) {
	t.Parallel()
	for _, layout := range []string{"dir", "image"} {
		t.Run(layout, func(t *testing.T) {
			t.Parallel()
			p := takePair(t)
			c := withBulk(t, p)
			if layout == "image" {
				imaged(t, p).destroy(t) // skips where there are none
				c.src.ok(t, "vzctl", "convert", c.ctid(), "--layout", layout)
			}
			first := decode(t, c.migrate(t, "--json", "-r", "no"))
			c = c.back()
			c.within(t, changes)
			want := c.digest(t)
			second := decode(t, c.migrate(t, "--json"))
			sendsLess(t, second, 10, first.WireBytes)
			c = c.back()
			if got := c.digest(t); got != want {
				t.Error("the files are others")
			}
			c.absentAt(t, c.dst)
			c.aloneAt(t, c.src)
		})
	}
}

// A move back that fails leaves what was kept as it was, and the next one uses
// it. So does a running container.
func TestMoveBackInterrupted(t *testing.T) {
	t.Parallel()
	for _, m := range moments {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			c := running(t, takePair(t))
			c.src.ok(t, "vzctl", "exec2", c.ctid(), bulk)
			first := decode(t, c.migrate(t, "--json", "-r", "no"))
			c = c.back()
			before := c.area(t, c.dst)
			book := c.keepBook(t)
			c.src.ok(t, "vzctl", "exec2", c.ctid(), changes+`; rm small10 small11`)
			p := c.migrateTo(t, m)
			p.interrupt()
			c.letDump(t)
			p.wait().wants(t, 25)
			c.goOn(t)
			c.runsAt(t, c.src)
			if now := c.area(t, c.dst); now != before {
				t.Errorf("what was kept has changed:\n%s", difference(now, before))
			}
			if left := c.dst.sh(t, "ls -A /var/lib/vz/private"); left != c.ctid() {
				t.Errorf("beside it: %s", left)
			}
			c.src.run(t, "tc", "qdisc", "change", "dev", "eth0", "root", "tbf", "rate", "4gbit", "burst", "1m", "latency", "200ms") // if it is narrow
			sums := c.src.ok(t, "vzctl", "exec2", c.ctid(), "cd /data && find . -type f | sort | xargs sha256sum")
			o := c.migrate(t, "--json") // with a note beside it where CRIU is hidden
			o.wants(t, 0)
			var second migrate.Report
			if err := json.Unmarshal([]byte(o.stdout), &second); err != nil {
				t.Fatal(o, err)
			}
			if now, all := content(second), content(first); !usedBase(second) || now*10 > all {
				t.Errorf("base: %v; %d bytes of files, %d the first time", usedBase(second), now, all)
			}
			c.moved(t)
			book.isWhole(t)
			c = c.back()
			if now := c.src.ok(t, "vzctl", "exec2", c.ctid(), "cd /data && find . -type f | sort | xargs sha256sum"); now != sums {
				t.Error("the files are others")
			}
			c.aloneAt(t, c.src)
		})
	}
}

// A container of the same template saves what the two share, and is not touched.
func TestSiblingIsBase(t *testing.T) {
	t.Parallel()
	p := takePair(t)
	c := withBulk(t, p)
	alone := decode(t, c.migrate(t, "--json"))
	if usedBase(alone) {
		t.Error("a base where there is none")
	}
	decode(t, c.back().migrate(t, "--json"))
	sibling := create(t, p, "minimal")
	decode(t, sibling.migrate(t, "--json"))
	before := sibling.area(t, p.dst)
	want := c.digest(t)
	sendsLess(t, decode(t, c.migrate(t, "--json")), 99, alone.WireBytes)
	if got := c.back().digest(t); got != want {
		t.Error("the files are others")
	}
	if now := sibling.area(t, p.dst); now != before {
		t.Errorf("the base has changed:\n%s", difference(now, before))
	}
}

// Files in the container's place that no migration has left are refused, also
// where one had left some before.
func TestForeignAreaIsNoBase(t *testing.T) {
	t.Parallel()
	c := create(t, takePair(t), "minimal")
	c.migrate(t, "-r", "no").wants(t, 0)
	c = c.back()
	c.dst.sh(t, "cd /var/lib/vz/private && mv %[1]d ../aside && mkdir %[1]d && echo mine >%[1]d/file", c.id)
	c.migrate(t).wants(t, 9, "is there already")
	c.dst.sh(t, "cd /var/lib/vz/private && grep -q mine %[1]d/file && rm -r %[1]d && mv ../aside %[1]d", c.id)
	c.migrate(t).wants(t, 0)
}

// With --keep-dst, what has gone over before a move failed need not go again.
func TestKeepDst(t *testing.T) {
	t.Parallel()
	c := running(t, takePair(t))
	c.src.ok(t, "vzctl", "exec2", c.ctid(), bulk)
	c.dst.stopCriu(t)
	p := admin(t).start(t, c.command("--keep-dst")...)
	if !p.reaches("send") {
		t.Fatal(p.wait())
	}
	p.interrupt()
	p.wait().wants(t, 25)
	c.goOn(t)
	c.runsAt(t, c.src)
	eventually(t, "the area to be kept", func() bool { // the destination hears of the end after the source
		return c.dst.sh(t, "ls -A /var/lib/vz/private") == fmt.Sprintf(".kept-%d", c.id)
	})
	c.migrate(t, "--json").wants(t, 0, `"name":"base"`)
	c.moved(t)
	c.aloneAt(t, c.dst)
}
