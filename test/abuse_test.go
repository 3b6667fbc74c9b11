package test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/vzkit/vzkit/internal/fault"
	"github.com/vzkit/vzkit/migrate"
	"github.com/vzkit/vzkit/transport"
)

const (
	aDir    = 0o040755
	aFile   = 0o100644
	aLink   = 0o120777
	aDevice = 0o020666
)

// abuse is something that no honest source does.
type abuse struct {
	name string
	do   func(r *receiver, o migrate.Offer)
	kind fault.Kind // of the answer; Other: there may be none
	code int
}

// suffers has a receiver on the destination go through each abuse. Nothing is
// left of it afterwards.
func suffers(t *testing.T, list []abuse) {
	t.Parallel()
	c := &container{pair: takePair(t)}
	c.id, c.addr = nextCTID()
	for _, a := range list {
		t.Run(a.name, func(t *testing.T) {
			r := c.dst.receiver(t)
			a.do(r, anOffer(c))
			r.gives(a.kind, a.code)
			c.absentAt(t, c.dst)
		})
	}
	if got := c.dst.sh(t, "ls -d /evil /etc/vz/evil /var/lib/vz/evil /var/lib/vz/private/evil /run/vz/evil /tmp/vzkit-evil 2>/dev/null || true"); got != "" {
		t.Errorf("out of bounds: %s", got)
	}
}

func TestAbuseBeforeOffer(t *testing.T) {
	hello := frame(transport.TypeHello, `{"magic":"vzkit","min_version":4,"max_version":4,"role":"sender","host_id":"x"}`)
	bytesOnly := func(b []byte) func(*receiver, migrate.Offer) {
		return func(r *receiver, _ migrate.Offer) { r.send(b) }
	}
	afterHello := func(b []byte) func(*receiver, migrate.Offer) {
		return func(r *receiver, _ migrate.Offer) { r.greet(); r.send(b) }
	}
	suffers(t, []abuse{
		{"nothing", bytesOnly(nil), fault.Connect, 4},
		{"text", bytesOnly([]byte("GET / HTTP/1.1\r\n\r\n")), fault.Protocol, 26},
		{"zeros", bytesOnly(make([]byte, 1<<20)), fault.Protocol, 26},
		{"half a hello", bytesOnly(hello[:len(hello)/2]), fault.Protocol, 26},
		{"corrupt hello", bytesOnly(flipped(hello, -3)), fault.Protocol, 26},
		{"long hello", bytesOnly(header(transport.TypeHello, 1<<31)), fault.Protocol, 26},
		{"hello of another program", bytesOnly(frame(transport.TypeHello, `{"magic":"other"}`)), fault.Protocol, 26},
		{"hello of a receiver", bytesOnly(bytes.Replace(hello, []byte("sender"), []byte("nobody"), 1)), fault.Protocol, 26},
		{"hello of the future", bytesOnly(frame(transport.TypeHello,
			`{"magic":"vzkit","min_version":7,"max_version":9,"role":"sender","host_id":"x"}`)), fault.Protocol, 26},
		{"no offer", afterHello(nil), fault.Other, 0},
		{"commit", afterHello(frame(transport.TypeCommit, "{}")), fault.Protocol, 26},
		{"hello again", afterHello(hello), fault.Protocol, 26},
		{"pages", afterHello(frame(transport.TypePages, make([]byte, 100))), fault.Protocol, 26},
		{"unknown type", afterHello(header(200, 0)), fault.Protocol, 26},
		{"offer that is no JSON", afterHello(frame(transport.TypeOffer, "{")), fault.Protocol, 26},
		{"offer of a list", afterHello(frame(transport.TypeOffer, "[]")), fault.Protocol, 26},
		{"long offer", afterHello(header(transport.TypeOffer, 1<<20)), fault.Protocol, 26},
		{"half an offer", afterHello(frame(transport.TypeOffer, `{"id":1}`)[:14]), fault.Protocol, 26},
		{"join nothing", afterHello(frame(transport.TypeJoin,
			`{"id":"01234567-89ab-4cde-8f01-23456789abcd","ctid":101}`)), fault.Protocol, 26},
		{"join that is no JSON", afterHello(frame(transport.TypeJoin, "{")), fault.Protocol, 26},
		{"memory", afterHello(frame(transport.TypeMemory, make([]byte, 9))), fault.Protocol, 26},
		{"packets", afterHello(frame(transport.TypePackets, make([]byte, 9))), fault.Protocol, 26},
		{"attach to nothing", afterHello(frame(transport.TypeAttach,
			`{"id":"01234567-89ab-4cde-8f01-23456789abcd","ctid":101}`)), fault.NoContainer, 10},
		{"attach elsewhere", afterHello(frame(transport.TypeAttach, `{"id":"../../../etc/passwd","ctid":101}`)), fault.Protocol, 26},
	})
}

func TestAbuseInOffer(t *testing.T) {
	offer := func(change func(*migrate.Offer)) func(*receiver, migrate.Offer) {
		return func(r *receiver, o migrate.Offer) {
			change(&o)
			r.greet()
			r.say(transport.TypeOffer, o)
		}
	}
	suffers(t, []abuse{
		{"id that is a path", offer(func(o *migrate.Offer) { o.ID = "../../../../tmp/vzkit-evil" }), fault.Protocol, 26},
		{"empty id", offer(func(o *migrate.Offer) { o.ID = "" }), fault.Protocol, 26},
		{"the host's number", offer(func(o *migrate.Offer) { o.CTID = 0 }), fault.Protocol, 26},
		{"reserved number", offer(func(o *migrate.Offer) { o.CTID = 100 }), fault.Protocol, 26},
		{"large number", offer(func(o *migrate.Offer) { o.CTID = 1<<32 - 1 }), fault.Protocol, 26},
		// Where things are at the source is not where they are put here.
		{"relative private area", offer(func(o *migrate.Offer) { o.Config = "VE_PRIVATE=../evil\n" }), fault.Connect, 4},
		{"private area elsewhere", offer(func(o *migrate.Offer) { o.Config = "VE_PRIVATE=/evil\n" }), fault.Connect, 4},
		{"root of the host", offer(func(o *migrate.Offer) { o.Config = "VE_ROOT=/\n" }), fault.Connect, 4},
		{"root over something", offer(func(o *migrate.Offer) { o.Config = "VE_ROOT=/proc\n" }), fault.Connect, 4},
		{"ids of the host", offer(func(o *migrate.Offer) { o.Config = "LOCAL_UID=0\n" }), fault.BadValue, 1},
		{"no address", offer(func(o *migrate.Offer) { o.Config = "IP_ADDRESS=127.0.0.1\n" }), fault.BadValue, 1},
		{"config that is none", offer(func(o *migrate.Offer) { o.Config = "IP_ADDRESS='\n" }), fault.Config, 10},
		{"all disk there is", offer(func(o *migrate.Offer) { o.Disk = 1 << 62 }), fault.NoSpace, 31},
		{"more disk than there are bytes", offer(func(o *migrate.Offer) { o.Disk = 1<<64 - 1 }), fault.NoSpace, 31},
		{"more inodes than there are numbers", offer(func(o *migrate.Offer) { o.Inodes = 1<<64 - 1 }), fault.NoSpace, 31},
		{"all memory there is", offer(func(o *migrate.Offer) { o.Memory = 1 << 62 }), fault.NoSpace, 31},
		{"more memory than there are bytes", offer(func(o *migrate.Offer) { o.Memory = 1<<64 - 1 }), fault.NoSpace, 31},
		{"a CRIU of the future", offer(func(o *migrate.Offer) { o.Criu = 990000 }), fault.NoEngine, 14},
	})
}

// accepted sends bytes behind an offer that was accepted.
func accepted(parts ...[]byte) func(*receiver, migrate.Offer) {
	return func(r *receiver, o migrate.Offer) {
		r.offer(o)
		r.send(bytes.Join(parts, nil))
	}
}

func TestAbuseOfFiles(t *testing.T) {
	begin := frame(transport.TypeFilesBegin, `{"pass":1,"frozen":false,"seed":"1"}`)
	root := frame(transport.TypeFileEntry, entry("", aDir, ""))
	files := func(entries ...[]byte) func(*receiver, migrate.Offer) {
		parts := [][]byte{begin, root}
		for _, e := range entries {
			parts = append(parts, frame(transport.TypeFileEntry, e))
		}
		return accepted(parts...)
	}
	list := []abuse{
		{"end", accepted(), fault.Connect, 4},
		{"end within a pass", files(), fault.Connect, 4},
		{"end within a frame", accepted(begin, root[:20]), fault.Protocol, 26},
		{"corrupt entry", accepted(begin, flipped(root, 15)), fault.Protocol, 26},
		{"corrupt checksum", accepted(begin, flipped(root, 9)), fault.Protocol, 26},
		{"long entry", accepted(begin, header(transport.TypeFileEntry, 1<<30)), fault.Protocol, 26},
		{"second pass first", accepted(frame(transport.TypeFilesBegin, `{"pass":2,"frozen":false,"seed":"1"}`)), fault.Protocol, 26},
		{"entry before the pass", accepted(root), fault.Protocol, 26},
		{"data without a file", accepted(begin, root, frame(transport.TypeFileData, make([]byte, 9))), fault.Protocol, 26},
		{"entry without its parent", files(entry("a/b/c", aDir, "")), fault.Protocol, 26},
		{"through a link out", files(entry("out", aLink, "/tmp"), entry("out/vzkit-evil", aDir, "")), fault.Protocol, 26},
		{"through a link up", files(entry("up", aLink, ".."), entry("up/evil", aDir, "")), fault.Protocol, 26},
		{"hard link out", files(link("evil", "../../../../etc/passwd")), fault.Protocol, 26},
		{"hard link through a link", files(entry("out", aLink, "/etc"), link("evil", "out/passwd")), fault.Protocol, 26},
		{"counts that lie", accepted(begin, root, frame(transport.TypeFilesEnd, `{"entries":7,"bytes":0,"deleted":0}`)), fault.Protocol, 26},
		{"batch elsewhere", accepted(begin, root, frame(transport.TypeFileBatch, batch("../evil", entry("f", aFile, "")))), fault.Protocol, 26},
		{"batch with a path", accepted(begin, root, frame(transport.TypeFileBatch, batch("", entry("../evil", aFile, "")))), fault.Protocol, 26},
		{"batch with a device", accepted(begin, root, frame(transport.TypeFileBatch, batch("", entry("evil", aDevice, "")))), fault.Protocol, 26},
		{"batch through a link", accepted(begin, root, frame(transport.TypeFileEntry, entry("out", aLink, "/tmp")),
			frame(transport.TypeFileBatch, batch("out", entry("vzkit-evil", aFile, "")))), fault.Protocol, 26},
		{"batch cut short", accepted(begin, root, frame(transport.TypeFileBatch, batch("", entry("f", aFile, ""))[:40]),
			frame(transport.TypeFilesEnd, `{"entries":2,"bytes":0,"deleted":0}`)), fault.Protocol, 26},
		{"aside elsewhere", accepted(begin, root, frame(transport.TypeFileAside, numbered(1, "../evil"))), fault.Protocol, 26},
		{"back of nothing", accepted(begin, root, frame(transport.TypeFileBack, numbered(1, "f"))), fault.Protocol, 26},
		{"copy without a file", accepted(begin, root, frame(transport.TypeFileCopy, make([]byte, 28))), fault.Protocol, 26},
		{"hole without a file", accepted(begin, root, frame(transport.TypeFileHole, make([]byte, 16))), fault.Protocol, 26},
		{"signature of what is elsewhere", accepted(begin, root, frame(transport.TypeFileSign, append(make([]byte, 4), "\x00\x07../evil"...))), fault.Protocol, 26},
		{"delete elsewhere", accepted(begin, root, frame(transport.TypeFileDelete, "../../../../tmp")), fault.Protocol, 26},
	}
	for _, path := range []string{"..", "../evil", "/evil", "a/../../evil", ".", "./evil", "a//b", "evil/", "a\x00b", strings.Repeat("x", 300)} {
		list = append(list, abuse{"path " + path[:min(len(path), 20)], files(entry("a", aDir, ""), entry(path, aDir, "")), fault.Protocol, 26})
	}
	suffers(t, list)
}

func TestAbuseOfMemory(t *testing.T) {
	begin := frame(transport.TypeMemoryBegin, "{}")
	memory := func(parts ...[]byte) func(*receiver, migrate.Offer) {
		return accepted(append([][]byte{begin}, parts...)...)
	}
	last := frame(transport.TypeFilesBegin, `{"pass":1,"frozen":true,"seed":"1"}`)
	root := frame(transport.TypeFileEntry, entry("", aDir, ""))
	lastEnd := frame(transport.TypeFilesEnd, `{"entries":1,"bytes":0,"deleted":0}`)
	memoryEnd := frame(transport.TypeMemoryEnd, `{"images":1,"pages":0}`)
	// A batch of one run: a reference from page 1 of space 1 to page 5, where nothing is.
	toNothing := []byte{1, 0, 0, 0, 4, 0, 0, 0, 0, 1<<3 | 1<<2 | 2, 5, 2, 0}
	list := []abuse{
		{"tracked memory of no kind", memory(frame(transport.TypeMemory, []byte{9})), fault.Protocol, 26},
		{"tracked memory without any", memory(frame(transport.TypeMemory, "")), fault.Protocol, 26},
		{"tracked memory cut off", memory(frame(transport.TypeMemory, []byte{1, 0, 0, 0, 200, 0})), fault.Protocol, 26},
		{"tracked memory that refers to nothing", memory(frame(transport.TypeMemory, toNothing)), fault.Protocol, 26},
		{"mark that counts what did not come", memory(frame(transport.TypeMemory,
			append([]byte{2, 0, 0, 0, 0, 0, 0, 0, 1}, make([]byte, 12)...)), frame(transport.TypeMemoryEnd, `{"mark":2}`)), fault.Protocol, 26},
		{"layout that is no JSON", memory(frame(transport.TypeLayout, "[")), fault.Protocol, 26},
		{"layout with a process that cannot be", memory(frame(transport.TypeLayout, `{"processes":[{"id":0,"space":1}]}`)), fault.Protocol, 26},
		{"layout that takes an object for a process", memory(frame(transport.TypeLayout,
			`{"processes":[{"id":1,"space":9223372036854775809}]}`)), fault.Protocol, 26},
		{"layout that takes a process for an object", memory(frame(transport.TypeLayout, `{"objects":[{"id":1,"space":1}]}`)), fault.Protocol, 26},
		{"packets before it is restored", memory(frame(transport.TypePackets, []byte{0, 0, 0, 9})), fault.Protocol, 26},
		{"pages that are none", memory(frame(transport.TypePages, make([]byte, 100))), fault.Protocol, 26},
		{"too short for pages", memory(frame(transport.TypePages, []byte{1, 2, 3})), fault.Protocol, 26},
		{"counts that lie", memory(frame(transport.TypeMemoryEnd, `{"images":3,"pages":9}`)), fault.Protocol, 26},
		{"no images at all", memory(frame(transport.TypeMemoryEnd, `{"images":0,"pages":0}`), last, root, lastEnd), fault.Restore, 7},
		{"images that are none", memory(frame(transport.TypeImage, image("inventory.img")), memoryEnd, last, root, lastEnd), fault.Restore, 7},
		{"last files before memory", accepted(last, root, lastEnd), fault.Protocol, 26},
		{"commit before it is restored", memory(frame(transport.TypeCommit, "{}")), fault.Protocol, 26},
		{"finish", memory(frame(transport.TypeFinish, "{}")), fault.Protocol, 26},
		{"error", memory(frame(transport.TypeError, `{"kind":18,"message":"so it is"}`)), fault.Other, 26},
		{"abort", memory(frame(transport.TypeAbort, "{}")), fault.Other, 0},
	}
	for _, name := range []string{"../evil.img", "/evil.img", "a/b.img", "..", ".", "", ".hidden", "a\x00b.img", strings.Repeat("x", 200)} {
		list = append(list, abuse{"image " + name[:min(len(name), 20)], memory(frame(transport.TypeImage, image(name))), fault.Protocol, 26})
	}
	suffers(t, list)
}
