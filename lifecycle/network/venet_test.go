package network_test

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables"
	"github.com/vishvananda/netlink"

	"github.com/vzkit/vzkit/internal/undo"
	"github.com/vzkit/vzkit/lifecycle/network"
)

// connect connects and routes the container; what the undo is given takes it
// back.
func (w *world) connect(u *undo.Stack) {
	w.t.Helper()
	if err := w.venet.Connect(w.pid, u); err != nil {
		w.t.Fatal(err)
	}
	if err := w.venet.Route(u); err != nil {
		w.t.Fatal(err)
	}
}

func TestConnectAndUndo(t *testing.T) {
	for _, addrs := range [][]string{{}, {container4}, {container6}, {container4, container6, farther4}} {
		w := newWorld(t, addrs...)
		before := w.state()
		var u undo.Stack
		w.connect(&u)
		for _, a := range addrs {
			w.wantReach(w.host, w.in, a)
			w.wantReach(w.in, w.host, map[string]string{"4": hostLAN4, "6": hostLAN6}[family(a)])
		}
		w.wantNoNeighbours(w.venet.HostEnd())
		w.at(w.in, func() { w.wantNoNeighbours(network.Inside) })
		if err := u.Run(); err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff(before, w.state()); diff != "" {
			t.Errorf("%v: left after the undo: %s", addrs, diff)
		}
	}
}

// The neighbour finds the container where it asks the whole LAN, at once.
func TestNeighbourReachesContainer(t *testing.T) {
	w := newWorld(t, container4, container6)
	var u undo.Stack
	w.connect(&u)
	for _, a := range []string{container4, container6} {
		w.wantReach(w.peer, w.in, a)
	}
	w.wantReach(w.in, w.peer, peerLAN4)
	w.wantReach(w.in, w.peer, peerLAN6)
	for file, want := range map[string]string{
		"ipv4/neigh/lan0/proxy_delay": "0", "ipv6/neigh/lan0/proxy_delay": "0", "ipv6/conf/lan0/proxy_ndp": "1",
		"ipv4/ip_forward": "1", "ipv6/conf/all/forwarding": "1",
	} {
		if got := sysctl(t, file); got != want {
			t.Errorf("%s is %s, want %s", file, got, want)
		}
	}
}

func TestUnrouteAndDisconnect(t *testing.T) {
	w := newWorld(t, container4, container6)
	before := w.state()
	var u undo.Stack
	w.connect(&u)
	u.Keep()
	for range 2 {
		if err := w.venet.Unroute(); err != nil {
			t.Error(err)
		}
	}
	if diff := cmp.Diff(append([]string{"link " + w.venet.HostEnd()}, before...), w.state(), sortLines); diff != "" {
		t.Errorf("left after Unroute: %s", diff)
	}
	for range 2 {
		if err := w.venet.Disconnect(); err != nil {
			t.Error(err)
		}
	}
	if err := w.venet.Unroute(); err != nil {
		t.Errorf("unroute without a link: %v", err)
	}
	if diff := cmp.Diff(before, w.state()); diff != "" {
		t.Errorf("left after Disconnect: %s", diff)
	}
}

// Routing again, as a container does that is moved back and forth, is fine.
func TestRouteTwice(t *testing.T) {
	w := newWorld(t, container4, container6)
	var first, second undo.Stack
	w.connect(&first)
	if err := w.venet.Route(&second); err != nil {
		t.Fatal(err)
	}
	w.wantReach(w.host, w.in, container6)
	if err := errors.Join(second.Run(), first.Run()); err != nil {
		t.Error(err)
	}
}

func TestConnectFails(t *testing.T) {
	w := newWorld(t, container4)
	before := w.state()
	var u undo.Stack
	if err := w.venet.Connect(1<<22, &u); err == nil {
		t.Error("connected a process that does not exist")
	}
	if err := w.venet.Route(&u); err == nil {
		t.Error("routed to a link that does not exist")
	}
	if err := w.venet.Connect(w.pid, &u); err != nil {
		t.Fatal(err)
	}
	var again undo.Stack
	if err := w.venet.Connect(w.pid, &again); err == nil {
		t.Error("connected twice")
	}
	if err := errors.Join(again.Run(), w.venet.Route(&u), u.Run()); err != nil {
		t.Errorf("the first connection after the second failed: %v", err)
	}
	if diff := cmp.Diff(before, w.state()); diff != "" {
		t.Errorf("left: %s", diff)
	}
}

func TestInUse(t *testing.T) {
	w := newWorld(t, container4, container6)
	var u undo.Stack
	want := func(used bool, addrs ...string) {
		t.Helper()
		for _, a := range addrs {
			if got, err := network.InUse(netip.MustParseAddr(a)); err != nil || got != used {
				t.Errorf("%s in use: %v, %v, want %v", a, got, err, used)
			}
		}
	}
	want(true, hostLAN4, hostLAN6)
	want(false, peerLAN4, peerLAN6, container4, container6, farther4)
	w.connect(&u)
	want(true, container4, container6)
	if err := u.Run(); err != nil {
		t.Error(err)
	}
	want(false, container4, container6)
}

func TestForeign(t *testing.T) {
	w := newWorld(t, container4, container6)
	var u undo.Stack
	w.connect(&u)
	want := func(things ...string) {
		t.Helper()
		got, err := w.venet.Foreign(w.pid)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(things, got); diff != "" {
			t.Errorf("foreign: %s", diff)
		}
	}
	want()
	w.at(w.in, func() {
		for _, name := range []string{"lo", network.Inside} {
			w.setUp(name, map[string]string{"lo": "203.0.113.1/32", network.Inside: "2001:db8:1::1/128"}[name])
		}
		bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}}
		if err := netlink.LinkAdd(bridge); err != nil {
			t.Fatal(err)
		}
		conn, err := nftables.New()
		if err != nil {
			t.Fatal(err)
		}
		conn.AddTable(&nftables.Table{Name: "guard", Family: nftables.TableFamilyINet})
		if err := conn.Flush(); err != nil {
			t.Fatal(err)
		}
	})
	want(`address 203.0.113.1 on "lo"`, `address 2001:db8:1::1 on "venet0"`, `link "br0"`, `packet filter table "guard"`)
	if _, err := w.venet.Foreign(1 << 22); err == nil {
		t.Error("looked into a process that does not exist")
	}
}

func TestNeighbours(t *testing.T) {
	w := newWorld(t, container4)
	var u undo.Stack
	w.connect(&u)
	for addr, want := range map[string]string{
		container4: "lan0", container6: "lan0", farther4: "", "127.0.0.2": "", "2001:db8:1::1": "",
	} {
		links, err := network.Neighbours(netip.MustParseAddr(addr))
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		for _, l := range links {
			got += l.Attrs().Name
		}
		if got != want {
			t.Errorf("%s lies on %q, want %q", addr, got, want)
		}
	}
}
