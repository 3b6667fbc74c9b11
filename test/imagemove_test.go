package test

import (
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/migrate"
	"github.com/vzkit/vzkit/transport"
)

// whole checks that the image of the stopped container is in order, without
// repairing anything.
func (c *container) whole(t *testing.T) {
	t.Helper()
	c.hasLoops(t, "0")
	c.src.run(t, "e2fsck", "-fn", fmt.Sprintf("/var/lib/vz/private/%d/root.img", c.id)).wants(t, 0)
}

// tree is a sum of all that GNU tar knows of a directory of the stopped
// container.
func (c *container) tree(t *testing.T, dir string) string {
	t.Helper()
	return c.mounted(t, `tar --create --format=posix --pax-option=exthdr.name=%%d/x/%%f,delete=atime,delete=ctime --sort=name \
		--numeric-owner --xattrs --xattrs-include='*' --acls `+dir+` | sha256sum`)
}

// wentBy checks in which way a move took the files.
func wentBy(t *testing.T, r migrate.Report, way string) {
	t.Helper()
	if r.Way != way {
		t.Errorf("files went by %s, want %s", r.Way, way)
	}
	t.Logf("by %s: %+v", r.Way, r.Passes)
}

// A running container's image moves by blocks, while its file system is written
// to, durably and not, and emptied.
func TestMoveImage(t *testing.T) {
	t.Parallel()
	c := imaged(t, takePair(t))
	c.mounted(t, "cp "+binDir()+"/vzbench usr/bin/ && "+things)
	want := c.tree(t, "d")
	c.src.ok(t, "vzctl", "start", c.ctid())
	c.serve(t, c.src, "vzbench serve --listen 0.0.0.0:%d", kvPort)
	c.serve(t, c.src, `sh -c 'i=0; until [ -e /root/stop ]; do i=$((i+1)); echo $i | dd of=/root/durable oflag=append conv=notrunc,fsync 2>/dev/null; done'`)
	c.serve(t, c.src, `sh -c 'i=0; until [ -e /root/stop ]; do i=$((i+1)); echo $i >>/root/log; dd if=/dev/zero bs=64k count=$((i%%50)) 2>/dev/null | tr "\0" x >/root/f$((i%%20)); `+
		`[ $((i%%7)) = 0 ] && rm /root/f*; done; touch /root/stopped'`)
	c.load(t)
	book := c.keepBook(t)
	for range 2 {
		r := decode(t, c.migrate(t, "--json"))
		wentBy(t, r, "blocks")
		last := r.Passes[len(r.Passes)-1]
		if first := r.Passes[0]; first.Bytes == 0 || first.Tracked || !last.Frozen || !last.Tracked || last.Bytes > first.Bytes/2 {
			t.Errorf("passes: %+v", r.Passes)
		}
		book.goesOn(t)
		c.moved(t)
		c = c.back()
		c.hasLoops(t, "1")
	}
	book.isWhole(t)
	c.src.ok(t, "vzctl", "exec2", c.ctid(), `touch /root/stop; until [ -e /root/stopped ]; do sleep 0.1; done; sleep 0.2; for f in log durable; do `+
		`[ $(wc -l </root/$f) = $(tail -n 1 /root/$f) ] && sort -c -n -u /root/$f || exit 1; done`)
	c.src.ok(t, "vzctl", "stop", c.ctid())
	c.whole(t)
	if got := c.tree(t, "d"); got != want {
		t.Error("files that nobody touched are others")
	}
}

// A move that is called off while the container stands still leaves its file
// system in use at the source, and in order.
func TestMoveImageInterrupted(t *testing.T) {
	t.Parallel()
	for _, m := range moments[1:] {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			c := imaged(t, takePair(t))
			c.mounted(t, "cp "+binDir()+"/vzbench usr/bin/")
			c.src.ok(t, "vzctl", "start", c.ctid())
			c.serve(t, c.src, "vzbench serve --listen 0.0.0.0:%d", kvPort)
			c.load(t)
			p := c.migrateTo(t, m)
			p.interrupt()
			c.letDump(t)
			p.wait().wants(t, 25, ", blocks of the image")
			c.goOn(t)
			c.stays(t)
			c.src.ok(t, "vzctl", "exec2", c.ctid(), "echo after >/root/after && sync")
			c.migrate(t, "--json").wants(t, 0, `"way":"blocks"`) // with a note beside it where CRIU is hidden
			c.moved(t)
			c = c.back()
			c.src.ok(t, "vzctl", "stop", c.ctid(), "--fast")
			c.whole(t)
			if got := c.mounted(t, "cat root/after"); got != "after" {
				t.Errorf("written after the first attempt: %q", got)
			}
		})
	}
}

// A destination that is killed while it builds the container leaves an image
// that is mounted. The next move takes that away.
func TestMoveImageReceiverKilled(t *testing.T) {
	t.Parallel()
	c := imaged(t, takePair(t))
	c.mounted(t, "cp "+binDir()+"/vzbench usr/bin/")
	c.src.ok(t, "vzctl", "start", c.ctid())
	c.serve(t, c.src, "vzbench serve --listen 0.0.0.0:%d", kvPort)
	c.load(t)
	p := c.migrateTo(t, moments[2])
	c.hasLoops(t, "2")
	c.dst.sh(t, "pkill -KILL -f '[v]zmigrate --receive'")
	if o := p.wait(); o.code == 0 {
		t.Error(o)
	}
	c.goOn(t)
	c.runsAt(t, c.src)
	c.migrate(t, "--json").wants(t, 0, `"way":"blocks"`)
	c.moved(t)
	c.hasLoops(t, "1")
}

// Where something is there already, or would be kept, or the image has far more
// than its files, these go one by one.
func TestImageMovesByFiles(t *testing.T) {
	t.Parallel()
	c := imaged(t, takePair(t))
	wentBy(t, decode(t, c.migrate(t, "--json", "--keep-dst")), "files")
	c = c.back()
	wentBy(t, decode(t, c.migrate(t, "--json", "-r", "no")), "blocks")
	c = c.back()
	wentBy(t, decode(t, c.migrate(t, "--json")), "files")
	c = c.back()
	c.within(t, "dd if=/dev/urandom of=/big bs=1M count=150 2>/dev/null && sync && rm /big && sync")
	c.migrate(t, "--json").wants(t, 0, `"way":"files"`, "vzctl compact gives those back")
	c = c.back()
	c.src.ok(t, "vzctl", "compact", c.ctid())
	wentBy(t, decode(t, c.migrate(t, "--json")), "blocks")
	c = c.back()
	c.whole(t)
}

// The disk of the destination fills up while an image comes.
func TestMoveImageDiskFillsUp(t *testing.T) {
	t.Parallel()
	c := imaged(t, takePair(t))
	c.within(t, "dd if=/dev/urandom of=/big bs=1M count=20 2>/dev/null")
	c.narrow(t, c.src)
	c.dst.small(t, 200)
	fill := c.dst.ready(t, "cat /dev/zero >/var/lib/vz/private/fat 2>/dev/null; true")
	move := admin(t).start(t, c.command()...)
	if !move.reaches("check") {
		t.Fatal(move.wait())
	}
	fill()
	move.wait().wants(t, 31, "root.img", "no space left", "hint: ")
	c.dst.sh(t, "rm /var/lib/vz/private/fat")
	c.absentAt(t, c.dst)
	c.whole(t)
}

// What an honest source does not send in place of an image.
func TestAbuseOfImage(t *testing.T) {
	const size = 64 << 20
	imaged := func(do func(r *receiver, o migrate.Offer)) func(*receiver, migrate.Offer) {
		return func(r *receiver, o migrate.Offer) {
			o.Config += "VE_LAYOUT=image\n"
			o.Image = &migrate.ImageOffer{Size: size, Allocated: 1 << 20}
			do(r, o)
		}
	}
	sized := func(size int64, allocated uint64) func(*receiver, migrate.Offer) {
		return imaged(func(r *receiver, o migrate.Offer) {
			o.Image = &migrate.ImageOffer{Size: size, Allocated: allocated}
			r.greet()
			r.say(transport.TypeOffer, o)
		})
	}
	coming := func(parts ...[]byte) func(*receiver, migrate.Offer) { return imaged(accepted(parts...)) }
	at := func(offset uint64, n int) []byte {
		return append(binary.BigEndian.AppendUint64(nil, offset), make([]byte, n)...)
	}
	begin := frame(transport.TypeBlocksBegin, fmt.Sprintf(`{"pass":1,"frozen":false,"size":%d}`, size))
	last := frame(transport.TypeBlocksBegin, fmt.Sprintf(`{"pass":1,"frozen":true,"size":%d}`, size))
	memory := append(frame(transport.TypeMemoryBegin, "{}"),
		append(frame(transport.TypeImage, image("inventory.img")), frame(transport.TypeMemoryEnd, `{"images":1,"pages":0}`)...)...)
	suffers(t, []abuse{
		{"no size", sized(0, 0), fault.Protocol, 26},
		{"negative size", sized(-4096, 0), fault.Protocol, 26},
		{"odd size", sized(size+1, 0), fault.Protocol, 26},
		{"more than an ext4 has", sized(1<<60, 0), fault.Protocol, 26},
		{"all disk there is", sized(size, 1<<60), fault.NoSpace, 31},
		{"more disk than there are bytes", sized(size, 1<<64-1), fault.NoSpace, 31},
		{"end within a pass", coming(begin), fault.Connect, 4},
		{"files", coming(frame(transport.TypeFilesBegin, `{"pass":1,"frozen":false,"seed":"1"}`)), fault.Protocol, 26},
		{"image in place of files", accepted(begin), fault.Protocol, 26},
		{"data before the pass", coming(frame(transport.TypeBlocksData, at(0, 4096))), fault.Protocol, 26},
		{"data beyond the end", coming(begin, frame(transport.TypeBlocksData, at(size, 4096))), fault.Protocol, 26},
		{"data around the end", coming(begin, frame(transport.TypeBlocksData, at(1<<64-4096, 8192))), fault.Protocol, 26},
		{"hole beyond the end", coming(begin, frame(transport.TypeBlocksHole, append(at(4096, 0), at(size, 0)...))), fault.Protocol, 26},
		{"another size", coming(frame(transport.TypeBlocksBegin, `{"pass":1,"frozen":false,"size":1099511627776}`)), fault.Protocol, 26},
		{"counts that lie", coming(begin, frame(transport.TypeBlocksEnd, `{"data":4096,"holes":0}`)), fault.Protocol, 26},
		{"an image that is none", coming(memory, last, frame(transport.TypeBlocksEnd, `{"data":0,"holes":0}`)), fault.ImageMount, 3},
	})
}
