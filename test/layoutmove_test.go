package test

import (
	"fmt"
	"strings"
	"testing"
)

// layouts are those that a container can have before and after a move.
var layouts = []struct{ from, to string }{{"image", ""}, {"dir", "image"}, {"image", "dir"}, {"dir", "dir"}}

// withLayout creates a container on the pair's source. Wherever it is destroyed,
// no loop device may be left of it.
func withLayout(t *testing.T, p pair, layout string) *container {
	t.Helper()
	c := imaged(t, p)
	if layout == "dir" {
		p.src.ok(t, "vzctl", "convert", c.ctid(), "--layout", layout)
	}
	return c
}

// toLayout are the flags of a move to a layout, "" for the one there is.
func toLayout(layout string) []string {
	if layout == "" {
		return nil
	}
	return []string{"--layout", layout}
}

// hasLayout checks which layout the container has on h.
func (c *container) hasLayout(t *testing.T, h host, want string) {
	t.Helper()
	got := "dir"
	if h.run(t, "test", "-f", fmt.Sprintf("/var/lib/vz/private/%d/root.img", c.id)).code == 0 {
		got = "image"
	}
	if conf := h.sh(t, ". /etc/vz/conf/%d.conf; echo $VE_LAYOUT", c.id); got != want || conf != want {
		t.Errorf("on %s: layout is %s, its config says %s, want %s", h.Name(), got, conf, want)
	}
}

// hasLoops checks how many loop devices have an image of the container, on any
// host: they share the kernel. What is just ending gets its time.
func (c *container) hasLoops(t *testing.T, want string) {
	t.Helper()
	eventually(t, "number of loop devices to be "+want, func() bool {
		return fmt.Sprint(len(strings.Fields(c.loops(t)))) == want
	})
}

// things makes files of every kind below the current directory.
const things = `mkdir -p d/e && echo text >d/file && ln d/file d/e/hard && ln -s ../none d/link && mkfifo d/fifo &&
	truncate -s 30M d/sparse && echo x | dd of=d/sparse bs=1M seek=7 conv=notrunc 2>/dev/null && chown 100007:100009 d/file && chmod 4750 d/file &&
	dd if=/dev/urandom of=d/big bs=1M count=3 2>/dev/null && touch -h -d '2001-02-03 04:05:06.789012345' d/link d/file d/fifo d/e d`

// A stopped container moves between all layouts with all that tar knows of it.
func TestMoveLayoutsStopped(t *testing.T) {
	t.Parallel()
	for _, l := range layouts {
		t.Run(l.from+" "+l.to, func(t *testing.T) {
			t.Parallel()
			c := withLayout(t, takePair(t), l.from)
			c.mounted(t, things)
			want := c.digest(t)
			c.migrate(t, toLayout(l.to)...).wants(t, 0)
			c.absentAt(t, c.src)
			c = c.back()
			if l.to == "" {
				l.to = l.from
			}
			c.hasLayout(t, c.src, l.to)
			if got := c.digest(t); got != want {
				t.Error("the files are others")
			}
			if left := c.src.sh(t, "ls -A /var/lib/vz/private"); left != c.ctid() {
				t.Errorf("beside the private area: %s", left)
			}
			c.hasLoops(t, "0")
			c.src.ok(t, "vzctl", "start", c.ctid())
			c.src.ok(t, "vzctl", "exec", c.ctid(), "test -p /d/fifo")
		})
	}
}

// A running container moves between all layouts and back, while directories
// come and go in it.
func TestMoveLayoutsLive(t *testing.T) {
	t.Parallel()
	for _, l := range layouts {
		t.Run(l.from+" "+l.to, func(t *testing.T) {
			t.Parallel()
			c := withLayout(t, takePair(t), l.from)
			c.mounted(t, "cp "+binDir()+"/vzbench usr/bin/ && "+things)
			c.src.ok(t, "vzctl", "start", c.ctid())
			c.serve(t, c.src, "vzbench serve --listen 0.0.0.0:%d", kvPort)
			c.serve(t, c.src, `sh -c 'i=0; until [ -e /root/stop ]; do i=$((i+1)); echo $i >>/root/log; mkdir /root/d$i; `+
				`echo $i >/root/d$i/f; rm -rf /root/e$((i%%20)); mv /root/d$i /root/e$((i%%20)); done; touch /root/stopped'`)
			c.load(t)
			book := c.keepBook(t)
			for _, to := range []string{l.to, l.from} {
				c.migrate(t, toLayout(to)...).wants(t, 0)
				book.goesOn(t)
				c.moved(t)
				if c = c.back(); to != "" {
					c.hasLayout(t, c.src, to)
				}
				c.hasLoops(t, c.src.sh(t, "ls /var/lib/vz/private/%d/root.img 2>/dev/null | wc -l", c.id))
			}
			book.isWhole(t)
			c.src.ok(t, "vzctl", "exec2", c.ctid(), `touch /root/stop; until [ -e /root/stopped ]; do sleep 0.1; done; `+
				`last=$(tail -n 1 /root/log); [ $(wc -l </root/log) = $last ] && sort -c -n -u /root/log && `+
				`[ $(cat /root/e$((last%20))/f) = $last ] && ! ls -d /root/d*`)
		})
	}
}

// A move to an image that fails leaves nothing, wherever it is.
func TestMoveLayoutInterrupted(t *testing.T) {
	t.Parallel()
	for _, m := range moments {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			c := withLayout(t, takePair(t), "image")
			c.mounted(t, "cp "+binDir()+"/vzbench usr/bin/")
			c.src.ok(t, "vzctl", "start", c.ctid())
			c.serve(t, c.src, "vzbench serve --listen 0.0.0.0:%d", kvPort)
			c.load(t)
			p := c.migrateTo(t, m)
			p.interrupt()
			c.letDump(t)
			p.wait().wants(t, 25)
			c.goOn(t)
			c.stays(t)
			c.hasLoops(t, "1")
		})
	}
}
