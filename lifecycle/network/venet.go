// Package network connects a container as OpenVZ's venet does: point to point
// with its host, without ARP or broadcasts, addresses given by the host alone.
//
// It is a veth pair. Both ends have the same link-layer address and NOARP, so
// that each side's frames carry just the address the other one accepts: there
// is no neighbour to resolve on the link, and nothing that a migration would
// have to carry over or wait for. The host routes each address to its end and
// answers ARP and neighbour solicitations for it on the networks it belongs to.
package network

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/vzkit/vzkit/internal/undo"
)

// Inside is the name of the container's end.
const Inside = "venet0"

// hardware is the link-layer address of both ends of every pair. It is
// OpenVZ's: locally administered, and the highest there is, so that no bridge
// ever adopts it as its own.
var hardware = net.HardwareAddr{0xfe, 0xff, 0xff, 0xff, 0xff, 0xff}

// Venet is the connection of one container.
type Venet struct {
	CTID  uint32
	Addrs []netip.Addr
}

// HostEnd is the name of the host's end.
func (v Venet) HostEnd() string { return "venet" + strconv.FormatUint(uint64(v.CTID), 10) }

// Connect makes the pair, with one end in the network namespace of process pid,
// gives that end the addresses and default routes, and sets the host's end up.
// No address is routed to it yet: see Route. The undo removes the pair.
func (v Venet) Connect(pid int, u *undo.Stack) error {
	inside, err := netns.GetFromPid(pid)
	if err != nil {
		return fmt.Errorf("open network namespace of process %d: %w", pid, err)
	}
	defer inside.Close()
	host, err := netns.Get()
	if err != nil {
		return fmt.Errorf("open own network namespace: %w", err)
	}
	defer host.Close()
	h, err := netlink.NewHandleAt(inside, unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("netlink in the container: %w", err)
	}
	defer h.Close()

	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.HardwareAddr = Inside, hardware
	pair := &netlink.Veth{LinkAttrs: attrs, PeerName: v.HostEnd(), PeerHardwareAddr: hardware, PeerNamespace: netlink.NsFd(host)}
	if err := h.LinkAdd(pair); err != nil {
		return fmt.Errorf("create %s: %w", v.HostEnd(), err)
	}
	u.Push("remove "+v.HostEnd(), v.Disconnect)
	if err := v.setUpHost(); err != nil {
		return err
	}
	return v.setUpInside(h, pair)
}

func (v Venet) setUpHost() error {
	link, err := netlink.LinkByName(v.HostEnd())
	if err != nil {
		return fmt.Errorf("find %s: %w", v.HostEnd(), err)
	}
	if err := netlink.LinkSetARPOff(link); err != nil {
		return fmt.Errorf("set %s noarp: %w", v.HostEnd(), err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("set %s up: %w", v.HostEnd(), err)
	}
	return nil
}

func (v Venet) setUpInside(h *netlink.Handle, link netlink.Link) error {
	lo, err := h.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find lo: %w", err)
	}
	if err := h.LinkSetUp(lo); err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	if err := h.LinkSetARPOff(link); err != nil {
		return fmt.Errorf("set %s noarp: %w", Inside, err)
	}
	for _, a := range v.Addrs {
		addr := &netlink.Addr{IPNet: hostNet(a), Flags: unix.IFA_F_NODAD}
		if err := h.AddrAdd(link, addr); err != nil {
			return fmt.Errorf("add address %s: %w", a, err)
		}
	}
	if err := h.LinkSetUp(link); err != nil {
		return fmt.Errorf("set %s up: %w", Inside, err)
	}
	return v.addDefaultRoutes(h, link)
}

func (v Venet) addDefaultRoutes(h *netlink.Handle, link netlink.Link) error {
	done := map[bool]bool{}
	for _, a := range v.Addrs {
		if done[a.Is4()] {
			continue
		}
		done[a.Is4()] = true
		r := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: anyNet(a.Is4()), Scope: netlink.SCOPE_LINK}
		if !a.Is4() {
			r.Scope = netlink.SCOPE_UNIVERSE
		}
		if err := h.RouteAdd(r); err != nil {
			return fmt.Errorf("add default route for %s: %w", a, err)
		}
	}
	return nil
}

// Route sends the container's addresses to it: host routes, and the host's
// answers for them on the networks they belong to. The undo takes it back.
func (v Venet) Route(u *undo.Stack) error {
	link, err := netlink.LinkByName(v.HostEnd())
	if err != nil {
		return fmt.Errorf("find %s: %w", v.HostEnd(), err)
	}
	for _, a := range v.Addrs {
		r := hostRoute(a, link)
		if err := netlink.RouteReplace(r); err != nil {
			return fmt.Errorf("route %s to %s: %w", a, v.HostEnd(), err)
		}
		u.Push("remove route to "+a.String(), func() error { return ignoreMissing(netlink.RouteDel(r)) })
		if err := proxy(a, u); err != nil {
			return err
		}
	}
	return nil
}

// hostRoute is the host's route to one of the container's addresses.
func hostRoute(a netip.Addr, link netlink.Link) *netlink.Route {
	r := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: hostNet(a)}
	if a.Is4() {
		r.Scope = netlink.SCOPE_LINK
	}
	return r
}

// Unroute takes back what Route did: the host no longer answers for the
// addresses and sends their traffic where its other routes say.
func (v Venet) Unroute() error {
	var errs []error
	for _, a := range v.Addrs {
		errs = append(errs, unproxy(a))
		if link, err := netlink.LinkByName(v.HostEnd()); err == nil {
			errs = append(errs, ignoreMissing(netlink.RouteDel(hostRoute(a, link))))
		}
	}
	return errors.Join(errs...)
}

// Disconnect removes the pair; a missing one is fine.
func (v Venet) Disconnect() error {
	link, err := netlink.LinkByName(v.HostEnd())
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("find %s: %w", v.HostEnd(), err)
	}
	return ignoreMissing(netlink.LinkDel(link))
}

// Forwarding lets the host route between its networks and containers, which
// every container needs (vz.conf: SKIP_SYSCTL_SETUP).
func Forwarding() error {
	for _, file := range []string{"ipv4/ip_forward", "ipv6/conf/all/forwarding"} {
		path := filepath.Join("/proc/sys/net", file)
		if now, err := os.ReadFile(path); errors.Is(err, os.ErrNotExist) || (err == nil && now[0] == '1') {
			continue
		}
		if err := os.WriteFile(path, []byte("1"), 0); err != nil {
			return fmt.Errorf("enable forwarding: %w", err)
		}
	}
	return nil
}

func hostNet(a netip.Addr) *net.IPNet {
	return &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}
}

func anyNet(v4 bool) *net.IPNet {
	if v4 {
		return &net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}
	}
	return &net.IPNet{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)}
}

func ignoreMissing(err error) error {
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}
