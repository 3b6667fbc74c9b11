package network_test

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/vzkit/vzkit/lifecycle/network"
)

// The test's world: a host with a LAN, a neighbour on that, and a container.
//
//	container ── venet101 ── host ── lan0 ── neighbour
const (
	ctid       = 101
	hostLAN4   = "192.0.2.1"
	peerLAN4   = "192.0.2.2"
	hostLAN6   = "2001:db8::1"
	peerLAN6   = "2001:db8::2"
	container4 = "192.0.2.101"
	container6 = "2001:db8::101"
	farther4   = "198.51.100.101" // on no network of the host's
)

var lanMAC = net.HardwareAddr{2, 0, 0, 0, 0, 1}

// world is where a test is: its thread is in the host's network namespace.
type world struct {
	t              *testing.T
	host, peer, in netns.NsHandle
	pid            int // of the container's process
	venet          network.Venet
}

// newWorld makes the world; it ends with the test, whose thread is in it.
func newWorld(t *testing.T, addrs ...string) *world {
	t.Helper()
	runtime.LockOSThread()
	w := &world{t: t, venet: network.Venet{CTID: ctid}}
	for _, a := range addrs {
		w.venet.Addrs = append(w.venet.Addrs, netip.MustParseAddr(a))
	}
	w.peer, w.host = w.namespace(), w.namespace()
	lan := &netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: "lan0", HardwareAddr: lanMAC}, PeerName: "eth0", PeerNamespace: netlink.NsFd(w.peer),
	}
	if err := netlink.LinkAdd(lan); err != nil {
		t.Fatal(err)
	}
	w.setUp("lan0", hostLAN4+"/24", hostLAN6+"/64")
	w.at(w.peer, func() { w.setUp("eth0", peerLAN4+"/24", peerLAN6+"/64") })
	if err := network.Forwarding(); err != nil {
		t.Fatal(err)
	}
	w.startContainer()
	return w
}

// namespace makes a network namespace and enters it.
func (w *world) namespace() netns.NsHandle {
	w.t.Helper()
	ns, err := netns.New()
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { ns.Close() })
	// Without this the LAN's own addresses are no good for two seconds.
	if err := os.WriteFile("/proc/sys/net/ipv6/conf/default/accept_dad", []byte("0"), 0); err != nil {
		w.t.Fatal(err)
	}
	return ns
}

// startContainer starts a process with a network namespace of its own.
func (w *world) startContainer() {
	w.t.Helper()
	cmd := exec.Command("sleep", "1000")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	w.pid = cmd.Process.Pid
	var err error
	if w.in, err = netns.GetFromPid(w.pid); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { w.in.Close() })
}

// at does something in another network namespace.
func (w *world) at(ns netns.NsHandle, do func()) {
	w.t.Helper()
	if err := netns.Set(ns); err != nil {
		w.t.Fatal(err)
	}
	defer func() {
		if err := netns.Set(w.host); err != nil {
			w.t.Fatal(err)
		}
	}()
	do()
}

func (w *world) setUp(name string, addrs ...string) {
	w.t.Helper()
	link := w.link(name)
	for _, a := range addrs {
		addr, err := netlink.ParseAddr(a)
		if err != nil {
			w.t.Fatal(err)
		}
		addr.Flags = unix.IFA_F_NODAD
		if err := netlink.AddrAdd(link, addr); err != nil {
			w.t.Fatal(err)
		}
	}
	if err := netlink.LinkSetUp(link); err != nil {
		w.t.Fatal(err)
	}
	for _, a := range addrs {
		w.wantLocal(netip.MustParsePrefix(a).Addr())
	}
}

// wantLocal waits until the kernel has made an address its own, which it does
// for IPv6 in its own time (addrconf_wq).
func (w *world) wantLocal(a netip.Addr) {
	w.t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		routes, err := netlink.RouteGet(a.AsSlice())
		if err == nil && len(routes) > 0 && routes[0].Type == unix.RTN_LOCAL {
			return
		}
	}
	w.t.Fatalf("%s does not become an address of this host", a)
}

func (w *world) link(name string) netlink.Link {
	w.t.Helper()
	link, err := netlink.LinkByName(name)
	if err != nil {
		w.t.Fatalf("%s: %v", name, err)
	}
	return link
}

// wantReach checks that a datagram gets from one namespace to addr in another,
// and its answer back.
func (w *world) wantReach(from, to netns.NsHandle, addr string) {
	w.t.Helper()
	var server, client net.PacketConn
	w.at(to, func() { server = w.listen(addr) })
	defer server.Close()
	w.at(from, func() { client = w.listen(unspecified(addr)) })
	defer client.Close()
	w.at(to, func() { w.wantLocal(netip.MustParseAddr(addr)) })
	if _, err := client.WriteTo([]byte("ping"), server.LocalAddr()); err != nil {
		w.t.Fatalf("send to %s: %v", addr, err)
	}
	buf := make([]byte, 16)
	n, back, err := server.ReadFrom(buf)
	if err != nil || string(buf[:n]) != "ping" {
		w.t.Fatalf("%s got %q, %v", addr, buf[:n], err)
	}
	if _, err := server.WriteTo([]byte("pong"), back); err != nil {
		w.t.Fatalf("answer from %s: %v", addr, err)
	}
	if n, _, err := client.ReadFrom(buf); err != nil || string(buf[:n]) != "pong" {
		w.t.Fatalf("answer of %s: %q, %v", addr, buf[:n], err)
	}
}

// family is "4" or "6".
func family(addr string) string {
	if netip.MustParseAddr(addr).Is4() {
		return "4"
	}
	return "6"
}

func unspecified(addr string) string {
	return map[string]string{"4": "0.0.0.0", "6": "::"}[family(addr)]
}

func (w *world) listen(addr string) net.PacketConn {
	w.t.Helper()
	// Which protocols there are Go finds out once, in whatever namespace.
	conn, err := net.ListenPacket("udp"+family(addr), net.JoinHostPort(addr, "0"))
	if err != nil {
		w.t.Fatal(err)
	}
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		w.t.Fatal(err)
	}
	return conn
}

// state lists the links, addresses, routes and proxied neighbours of the
// host, but for what the kernel keeps by itself.
func (w *world) state() (lines []string) {
	w.t.Helper()
	links, err := netlink.LinkList()
	if err != nil {
		w.t.Fatal(err)
	}
	for _, l := range links {
		lines = append(lines, "link "+l.Attrs().Name)
		for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
			proxies, err := netlink.NeighProxyList(l.Attrs().Index, family)
			if err != nil {
				w.t.Fatal(err)
			}
			for _, n := range proxies {
				lines = append(lines, fmt.Sprintf("proxy %s on %s", n.IP, l.Attrs().Name))
			}
		}
	}
	routes, err := netlink.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, r := range routes {
		if r.Dst != nil && !strings.HasPrefix(r.Dst.String(), "fe80:") {
			lines = append(lines, fmt.Sprintf("route %s by %d", r.Dst, r.LinkIndex))
		}
	}
	return lines
}

// mislead makes the neighbour believe that addresses are at another machine.
func (w *world) mislead(addrs ...string) {
	w.t.Helper()
	for _, a := range addrs {
		err := netlink.NeighSet(&netlink.Neigh{
			LinkIndex: w.link("eth0").Attrs().Index, IP: net.ParseIP(a), State: netlink.NUD_REACHABLE,
			HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 99},
		})
		if err != nil {
			w.t.Fatal(err)
		}
	}
}

// sortLines compares lists of lines whatever their order.
var sortLines = cmpopts.SortSlices(func(a, b string) bool { return a < b })

// wantNoNeighbours checks that nobody had to ask for an address on a link.
func (w *world) wantNoNeighbours(name string) {
	w.t.Helper()
	const unresolved = netlink.NUD_INCOMPLETE | netlink.NUD_FAILED | netlink.NUD_PROBE | netlink.NUD_DELAY | netlink.NUD_STALE
	list, err := netlink.NeighList(w.link(name).Attrs().Index, netlink.FAMILY_ALL)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, n := range list {
		if n.State&unresolved != 0 {
			w.t.Errorf("neighbour on %s: %s in state %#x", name, n.IP, n.State)
		}
	}
}

func sysctl(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile("/proc/sys/net/" + path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}
