package freeze_test

import (
	"errors"
	"net"
	"runtime"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/vzkit/vzkit/freeze"
)

const (
	hostEnd = "venet101"
	hostIP  = "192.0.2.1"
	peerIP  = "192.0.2.2"
)

// wire is a pair of sockets at the two ends of a link.
type wire struct{ host, peer *net.UDPConn }

// newWire puts the test into a network namespace of its own, with a link to
// another one. The test's thread ends with the test, and both namespaces with
// it.
func newWire(t *testing.T) wire {
	t.Helper()
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	home, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	peer, err := netns.New() // and enters it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(home.Close(), peer.Close()); err != nil {
			t.Error(err)
		}
	})
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "eth0"
	err = netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: hostEnd, PeerNamespace: netlink.NsFd(home)})
	if err != nil {
		t.Fatal(err)
	}
	setUp(t, "eth0", peerIP)
	if err := netns.Set(home); err != nil {
		t.Fatal(err)
	}
	setUp(t, hostEnd, hostIP)
	w := wire{host: listen(t, hostIP)}
	if err := netns.Set(peer); err != nil {
		t.Fatal(err)
	}
	w.peer = listen(t, peerIP)
	if err := netns.Set(home); err != nil {
		t.Fatal(err)
	}
	w.warmUp(t)
	return w
}

// warmUp sends until packets pass both ways: a new link drops the first ones
// until the kernel has noticed its carrier, and each end has to find the other.
func (w wire) warmUp(t *testing.T) {
	t.Helper()
	for name, way := range map[string][2]*net.UDPConn{"host": {w.host, w.peer}, "peer": {w.peer, w.host}} {
		for try := 0; ; try++ {
			_, _ = way[0].WriteTo(nil, way[1].LocalAddr())
			if arrived(way[1]) {
				break
			}
			if try == 200 {
				t.Fatalf("nothing from the %s passes", name)
			}
		}
		for arrived(way[1]) { // what had waited for the link
		}
	}
	for _, conn := range []*net.UDPConn{w.host, w.peer} {
		if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
	}
}

func arrived(at *net.UDPConn) bool {
	_ = at.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	_, _, err := at.ReadFrom(make([]byte, 64))
	return err == nil
}

func setUp(t *testing.T, name, ip string) {
	t.Helper()
	link, err := netlink.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	addr, err := netlink.ParseAddr(ip + "/24")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(netlink.AddrAdd(link, addr), netlink.LinkSetUp(link)); err != nil {
		t.Fatal(err)
	}
}

func listen(t *testing.T, ip string) *net.UDPConn {
	t.Helper()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.ParseIP(ip), Port: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// send sends text both ways.
func (w wire) send(t *testing.T, text string) {
	t.Helper()
	_, there := w.host.WriteTo([]byte(text), w.peer.LocalAddr())
	_, back := w.peer.WriteTo([]byte(text), w.host.LocalAddr())
	if err := errors.Join(there, back); err != nil {
		t.Fatal(err)
	}
}

// want checks that text is what arrives next, at both ends.
func (w wire) want(t *testing.T, text string) {
	t.Helper()
	for name, conn := range map[string]*net.UDPConn{"host": w.host, "peer": w.peer} {
		buf := make([]byte, 64)
		n, _, err := conn.ReadFrom(buf)
		if got := string(buf[:n]); err != nil || got != text {
			t.Errorf("%s got %q, %v, want %q", name, got, err, text)
		}
	}
}

func wantTables(t *testing.T, want ...string) {
	t.Helper()
	conn, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	tables, err := conn.ListTables()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, table := range tables {
		got = append(got, table.Name)
	}
	if len(got) != len(want) || len(want) > 0 && got[0] != want[0] {
		t.Errorf("packet filter tables %q, want %q", got, want)
	}
}

func TestHoldAndRelease(t *testing.T) {
	w := newWire(t)
	w.send(t, "before")
	w.want(t, "before")
	for _, holds := range []int{1, 2} {
		var h *freeze.Hold
		for range holds {
			var err error
			if h, err = freeze.HoldLink(hostEnd); err != nil {
				t.Fatal(err)
			}
		}
		wantTables(t, "vz-hold-"+hostEnd)
		w.send(t, "while held")
		for range 2 {
			if err := h.Release(); err != nil {
				t.Fatal(err)
			}
		}
		wantTables(t)
		w.send(t, "after")
		w.want(t, "after") // and what was sent while held came not before it
	}
}

// A hold that is opened lets packets pass, and can be ended later.
func TestPass(t *testing.T) {
	w := newWire(t)
	if _, err := freeze.HoldLink(hostEnd); err != nil {
		t.Fatal(err)
	}
	w.send(t, "while held")
	for range 2 {
		if err := freeze.PassLink(hostEnd); err != nil {
			t.Fatal(err)
		}
	}
	w.send(t, "after")
	w.want(t, "after")
	if err := freeze.ReleaseLink(hostEnd); err != nil {
		t.Fatal(err)
	}
	wantTables(t)
	if err := freeze.PassLink(hostEnd); err != nil {
		t.Errorf("no hold: %v", err)
	}
}

// A link that goes away while it is held, as a container's does that is
// killed, leaves a table that can be released.
func TestReleaseWithoutLink(t *testing.T) {
	newWire(t)
	h, err := freeze.HoldLink(hostEnd)
	if err != nil {
		t.Fatal(err)
	}
	link, err := netlink.LinkByName(hostEnd)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(netlink.LinkDel(link), h.Release()); err != nil {
		t.Error(err)
	}
	wantTables(t)
}

func TestHoldMissingLink(t *testing.T) {
	newWire(t)
	if _, err := freeze.HoldLink("venet102"); err == nil {
		t.Error("a missing link is held")
	}
	wantTables(t)
}
