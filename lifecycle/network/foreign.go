package network

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// fallback are links that the kernel puts into every network namespace when
// the module of a tunnel type is loaded.
var fallback = []string{"lo", Inside, "tunl0", "gre0", "gretap0", "erspan0", "ip_vti0", "ip6_vti0", "sit0", "ip6tnl0", "ip6gre0"}

// Foreign lists what the network namespace of process pid has beyond what
// Connect makes: links, addresses, routes and packet filter tables that
// somebody made inside. Each is described for a person: `link "br0"`.
func (v Venet) Foreign(pid int) ([]string, error) {
	ns, err := netns.GetFromPid(pid)
	if err != nil {
		return nil, fmt.Errorf("open network namespace of process %d: %w", pid, err)
	}
	defer ns.Close()
	h, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("netlink in the container: %w", err)
	}
	defer h.Close()
	found, err := v.foreignLinks(h)
	if err != nil {
		return nil, err
	}
	routes, err := foreignRoutes(h)
	if err != nil {
		return nil, err
	}
	tables, err := filterTables(ns, pid)
	return slices.Concat(found, routes, tables), err
}

// foreignRoutes are those of the main table that neither the kernel made by
// itself nor Connect: its default routes have no gateway.
func foreignRoutes(h *netlink.Handle) (found []string, err error) {
	routes, err := whole(func() ([]netlink.Route, error) { return h.RouteList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("list routes of the container: %w", err)
	}
	for _, r := range routes {
		ones := 0
		if r.Dst != nil {
			ones, _ = r.Dst.Mask.Size()
		}
		if r.Protocol != unix.RTPROT_KERNEL && (ones > 0 || r.Gw != nil) {
			found = append(found, fmt.Sprintf("a route to %s", r.Dst))
		}
	}
	return found, nil
}

// filterTables are the packet filter tables of nftables and of the older
// ip_tables, which the kernel keeps apart.
func filterTables(ns netns.NsHandle, pid int) (found []string, err error) {
	conn, err := nftables.New(nftables.WithNetNSFd(int(ns)))
	if err != nil {
		return nil, fmt.Errorf("nftables in the container: %w", err)
	}
	tables, err := conn.ListTables()
	if err != nil {
		return nil, fmt.Errorf("list nftables of the container: %w", err)
	}
	var names []string
	for _, t := range tables {
		names = append(names, t.Name)
	}
	for _, file := range []string{"ip_tables_names", "ip6_tables_names"} {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", pid, file))
		if err != nil && !os.IsNotExist(err) {
			return nil, fmt.Errorf("list ip_tables of the container: %w", err)
		}
		names = append(names, strings.Fields(string(text))...)
	}
	for _, name := range names {
		found = append(found, fmt.Sprintf("packet filter table %q", name))
	}
	return found, nil
}

func (v Venet) foreignLinks(h *netlink.Handle) ([]string, error) {
	links, err := whole(h.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list links of the container: %w", err)
	}
	var found []string
	for _, l := range links {
		name := l.Attrs().Name
		if !slices.Contains(fallback, name) {
			found = append(found, fmt.Sprintf("link %q", name))
			continue
		}
		addrs, err := whole(func() ([]netlink.Addr, error) { return h.AddrList(l, netlink.FAMILY_ALL) })
		if err != nil {
			return nil, fmt.Errorf("list addresses of the container: %w", err)
		}
		for _, a := range addrs {
			ip, _ := netip.AddrFromSlice(a.IP)
			ip = ip.Unmap()
			if !ip.IsLoopback() && !ip.IsLinkLocalUnicast() && !slices.Contains(v.Addrs, ip) {
				found = append(found, fmt.Sprintf("address %s on %q", ip, name))
			}
		}
	}
	return found, nil
}
