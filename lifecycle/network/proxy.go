package network

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/vzkit/vzkit/internal/undo"
)

// Neighbours returns the host's links on whose networks a lies: there the host
// must answer for it and announce it. These are the "detect" devices of
// vz.conf's NEIGHBOUR_DEVS.
func Neighbours(a netip.Addr) ([]netlink.Link, error) {
	links, err := whole(netlink.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	var on []netlink.Link
	for _, l := range links {
		attrs := l.Attrs()
		if attrs.Flags&net.FlagLoopback != 0 || attrs.Flags&net.FlagUp == 0 || strings.HasPrefix(attrs.Name, "venet") {
			continue
		}
		addrs, err := whole(func() ([]netlink.Addr, error) { return netlink.AddrList(l, netlink.FAMILY_ALL) })
		if err != nil {
			return nil, fmt.Errorf("list addresses of %s: %w", attrs.Name, err)
		}
		for _, own := range addrs {
			if ones, bits := own.Mask.Size(); ones < bits && own.Contains(a.AsSlice()) {
				on = append(on, l)
				break
			}
		}
	}
	return on, nil
}

// InUse tells whether the host itself or one of its containers has address a.
func InUse(a netip.Addr) (bool, error) {
	routes, err := whole(func() ([]netlink.Route, error) {
		return netlink.RouteListFiltered(netlink.FAMILY_ALL,
			&netlink.Route{Dst: hostNet(a), Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_DST|netlink.RT_FILTER_TABLE)
	})
	if err != nil {
		return false, fmt.Errorf("list routes to %s: %w", a, err)
	}
	return len(routes) > 0, nil
}

// proxy makes the host answer for a at once. The kernel delays proxied answers
// to broadcast requests by up to 0.8 s (proxy_delay, arp(7)); a container that
// has just moved cannot wait for that.
func proxy(a netip.Addr, u *undo.Stack) error {
	links, err := Neighbours(a)
	if err != nil {
		return err
	}
	for _, l := range links {
		if err := setProxySysctls(l.Attrs().Name, a.Is4()); err != nil {
			return err
		}
		n := proxyEntry(a, l)
		if err := netlink.NeighSet(n); err != nil {
			return fmt.Errorf("answer for %s on %s: %w", a, l.Attrs().Name, err)
		}
		u.Push("stop answering for "+a.String(), func() error { return ignoreMissing(netlink.NeighDel(n)) })
	}
	return nil
}

func unproxy(a netip.Addr) error {
	links, err := Neighbours(a)
	if err != nil {
		return err
	}
	var errs []error
	for _, l := range links {
		errs = append(errs, ignoreMissing(netlink.NeighDel(proxyEntry(a, l))))
	}
	return errors.Join(errs...)
}

func proxyEntry(a netip.Addr, l netlink.Link) *netlink.Neigh {
	family := unix.AF_INET
	if a.Is6() {
		family = unix.AF_INET6
	}
	return &netlink.Neigh{LinkIndex: l.Attrs().Index, Family: family, Flags: netlink.NTF_PROXY, IP: a.AsSlice()}
}

func setProxySysctls(dev string, v4 bool) error {
	files := map[string]string{"ipv4/neigh/" + dev + "/proxy_delay": "0"}
	if !v4 {
		files = map[string]string{
			"ipv6/neigh/" + dev + "/proxy_delay": "0",
			"ipv6/conf/" + dev + "/proxy_ndp":    "1",
		}
	}
	for file, value := range files {
		if err := os.WriteFile("/proc/sys/net/"+file, []byte(value), 0); err != nil {
			return fmt.Errorf("set up %s: %w", dev, err)
		}
	}
	return nil
}

// whole asks the kernel for a list until nothing changed meanwhile: an answer
// that others' changes interrupted may lack entries (NLM_F_DUMP_INTR, netlink(7)).
func whole[T any](list func() ([]T, error)) (all []T, err error) {
	for range 100 {
		if all, err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return all, err
}
