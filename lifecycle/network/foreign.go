package network

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// fallback are links that the kernel puts into every network namespace when
// the module of a tunnel type is loaded.
var fallback = []string{"lo", Inside, "tunl0", "gre0", "gretap0", "erspan0", "ip_vti0", "ip6_vti0", "sit0", "ip6tnl0", "ip6gre0"}

// Foreign lists what the network namespace of process pid has beyond what
// Connect makes: links, addresses and packet filter tables that somebody made
// inside. Each is described for a person: `link "br0"`.
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
	conn, err := nftables.New(nftables.WithNetNSFd(int(ns)))
	if err != nil {
		return nil, fmt.Errorf("nftables in the container: %w", err)
	}
	tables, err := conn.ListTables()
	if err != nil {
		return nil, fmt.Errorf("list nftables of the container: %w", err)
	}
	for _, t := range tables {
		found = append(found, fmt.Sprintf("packet filter table %q", t.Name))
	}
	return found, nil
}

func (v Venet) foreignLinks(h *netlink.Handle) ([]string, error) {
	links, err := h.LinkList()
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
		addrs, err := h.AddrList(l, netlink.FAMILY_ALL)
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
